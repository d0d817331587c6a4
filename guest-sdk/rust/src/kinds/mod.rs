//! What a plugin can be: a module a kind, with its trait and the values that go through it.
//!
//! A plugin's type is its configuration: the host hands the binding's `config` object over in each call and serde
//! builds the plugin from it. What has to be prepared once a call (compiled patterns, say) goes in by
//! `#[serde(try_from = "Config")]`. A configuration that does not fit answers [`crate::Error::Invalid`].

pub mod evaluator;
pub mod finder;
pub mod generator;
pub mod memory;
pub mod orchestrator;
pub mod prompt_store;
pub mod reward_scorer;
pub mod shield;
pub mod tool;
pub mod toolset;
pub mod windows;

/// Types that [`crate::export!`] exports: each turns the generated trait into the one of its kind.
#[doc(hidden)]
pub mod glue {
    use std::marker::PhantomData;
    macro_rules! glue {
        ($($kind:ident)*) => { $(#[derive(Debug)] pub struct $kind<T>(PhantomData<T>);)* };
    }
    glue!(Shield Orchestrator PromptStore Memory Evaluator RewardScorer Generator Tool Toolset);
}
