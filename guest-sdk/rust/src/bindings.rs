//! Raw bindings of `wit/v0.1`, generated: one set of imports for all kinds of plugin, and one export world a kind.
//!
//! Invariant: types that two worlds share are generated once, in [`host`]. An export world names nothing but the
//! interface it exports: the linker takes from `host` only what a plugin really calls, so a component imports no more
//! than it uses.
//!
//! Everything is lowered and lifted synchronously (`async: false`): plugin code reads as plain Rust and a component
//! comes out at a third of the size. `tools.call` is bound a second time, asynchronously, in [`overlapping`].

/// All interfaces that a plugin may import.
pub mod host {
    wit_bindgen::generate!({
        inline: "
            package stockade:sdk;
            world host {
                include stockade:plugin/services@0.1.0;
                import stockade:plugin/prompt-store@0.1.0;
                import stockade:plugin/memory@0.1.0;
                import stockade:plugin/output@0.1.0;
            }
        ",
        path: "wit",
        world: "stockade:sdk/host",
        async: false,
        generate_all,
        additional_derives: [PartialEq],
    });
}

/// The calls that may overlap.
pub mod overlapping {
    wit_bindgen::generate!({
        inline: "package sdk:overlapping; world overlapping { import stockade:plugin/tools@0.1.0; }",
        path: "wit",
        with: {
            "stockade:plugin/types@0.1.0": crate::bindings::host::stockade::plugin::types,
            "stockade:plugin/tools@0.1.0": generate,
        },
    });
}

macro_rules! export_world {
    ($module:ident, $inline:literal, $macro:literal, $bindings:literal) => {
        #[doc(hidden)]
        pub mod $module {
            wit_bindgen::generate!({
                inline: $inline,
                path: "wit",
                async: false,
                pub_export_macro: true,
                export_macro_name: $macro,
                default_bindings_module: $bindings,
                additional_derives: [PartialEq],
                with: { "stockade:plugin/types@0.1.0": crate::bindings::host::stockade::plugin::types },
            });
        }
    };
}
export_world!(
    shield,
    "package sdk:shield; world shield { export stockade:plugin/shield@0.1.0; }",
    "__export_shield",
    "stockade_guest::bindings::shield"
);
export_world!(
    orchestrator,
    "package sdk:orchestrator; world orchestrator { export stockade:plugin/orchestrator@0.1.0; }",
    "__export_orchestrator",
    "stockade_guest::bindings::orchestrator"
);
export_world!(
    prompt_store,
    "package sdk:prompt-store; world prompt-store { export stockade:plugin/prompt-store@0.1.0; }",
    "__export_prompt_store",
    "stockade_guest::bindings::prompt_store"
);
export_world!(
    memory,
    "package sdk:memory; world memory { export stockade:plugin/memory@0.1.0; }",
    "__export_memory",
    "stockade_guest::bindings::memory"
);
export_world!(
    evaluator,
    "package sdk:evaluator; world evaluator { export stockade:plugin/evaluator@0.1.0; }",
    "__export_evaluator",
    "stockade_guest::bindings::evaluator"
);
export_world!(
    reward_scorer,
    "package sdk:reward-scorer; world reward-scorer { export stockade:plugin/reward-scorer@0.1.0; }",
    "__export_reward_scorer",
    "stockade_guest::bindings::reward_scorer"
);
export_world!(
    generator,
    "package sdk:generator; world generator { export stockade:plugin/generator@0.1.0; }",
    "__export_generator",
    "stockade_guest::bindings::generator"
);
export_world!(
    tool,
    "package sdk:tool; world tool { export stockade:plugin/tool@0.1.0; }",
    "__export_tool",
    "stockade_guest::bindings::tool"
);
export_world!(
    toolset,
    "package sdk:toolset; world toolset { export stockade:plugin/toolset@0.1.0; }",
    "__export_toolset",
    "stockade_guest::bindings::toolset"
);
