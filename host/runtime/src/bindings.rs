//! The plugin API of `wit/v0.1` as Rust: what the host serves, and the values of what plugins export.
//!
//! The exported interfaces stand among the imports here, since values then have one Rust type on both sides: what a
//! component passes to a prompt store goes into the prompt store's component as it is. Only interfaces that
//! [`crate::host`] links can be imported; exports are called through [`crate::exports`].

wasmtime::component::bindgen!({
    inline: "
        package stockade:runtime;

        world host {
            import stockade:plugin/telemetry@0.1.0;
            import stockade:plugin/config@0.1.0;
            import stockade:plugin/system@0.1.0;
            import stockade:plugin/inference@0.1.0;
            import stockade:plugin/state@0.1.0;
            import stockade:plugin/vectors@0.1.0;
            import stockade:plugin/secrets@0.1.0;
            import stockade:plugin/http@0.1.0;
            import stockade:plugin/tools@0.1.0;
            import stockade:plugin/shields@0.1.0;
            import stockade:plugin/datasets@0.1.0;
            import stockade:plugin/jobs@0.1.0;
            import stockade:plugin/output@0.1.0;
            import stockade:plugin/prompt-store@0.1.0;
            import stockade:plugin/memory@0.1.0;

            import stockade:plugin/shield@0.1.0;
            import stockade:plugin/orchestrator@0.1.0;
            import stockade:plugin/evaluator@0.1.0;
            import stockade:plugin/reward-scorer@0.1.0;
            import stockade:plugin/generator@0.1.0;
            import stockade:plugin/tool@0.1.0;
            import stockade:plugin/toolset@0.1.0;
        }
    ",
    path: "../../wit/v0.1",
    imports: { default: trappable },
    with: {
        "stockade:plugin/inference.generation": crate::host::inference::Generation,
        "stockade:plugin/state.bucket": crate::host::state::Bucket,
        "stockade:plugin/vectors.index": crate::host::vectors::Index,
        "stockade:plugin/telemetry.span": crate::host::telemetry::Span,
    },
    additional_derives: [PartialEq],
});

pub(crate) use self::stockade::plugin::*;
