//! A panic ends the call as a bare trap; its message goes to the component's log first.

use std::sync::Once;

static HOOK: Once = Once::new();

/// Every export calls this before anything of the plugin runs.
pub(crate) fn install() {
    if cfg!(target_arch = "wasm32") {
        HOOK.call_once(|| {
            std::panic::set_hook(Box::new(|info| {
                crate::sys::telemetry::log(crate::telemetry::Level::Error, &info.to_string());
            }));
        });
    }
}
