//! The host's side of the plugin API, one file per WIT interface. Each function counts itself, checks the grant, turns
//! values around and calls a seam; an algorithm here would be misplaced.
//!
//! Invariants:
//! - an interface without a grant is linked all the same, and each of its calls answers `denied`
//! - an outer `Err` ends the guest (a limit, or the host's own failure); whatever a correct guest may meet is an inner one
//! - the store is never held across an `await`

pub(crate) mod config;
pub(crate) mod datasets;
pub(crate) mod http;
pub(crate) mod inference;
pub(crate) mod jobs;
pub(crate) mod memory;
pub(crate) mod output;
pub(crate) mod prompts;
pub(crate) mod secrets;
pub(crate) mod shields;
pub(crate) mod state;
pub(crate) mod system;
pub(crate) mod telemetry;
pub(crate) mod tools;
pub(crate) mod vectors;

use crate::bindings::{self, types};
use crate::exports::Export;
use crate::guest::{Context, Guest, TurnState};
use crate::meter::Meter;
use crate::runtime::Inner;
use std::sync::Arc;
use stockade_core::id::ComponentName;
use stockade_core::plugin::{Grants, Role};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::{Accessor, ComponentNamedList, ComponentType, HasSelf, Lift, Linker, Lower};

/// What a host function answers: the guest's end, or its business.
pub(crate) type Answer<T> = wasmtime::Result<Result<T, types::Error>>;

/// Names of the interfaces that a component may import, without their version.
pub(crate) const OFFERED: &[&str] = &[
    "stockade:plugin/types",
    "stockade:plugin/telemetry",
    "stockade:plugin/config",
    "stockade:plugin/system",
    "stockade:plugin/inference",
    "stockade:plugin/state",
    "stockade:plugin/vectors",
    "stockade:plugin/secrets",
    "stockade:plugin/http",
    "stockade:plugin/tools",
    "stockade:plugin/shields",
    "stockade:plugin/datasets",
    "stockade:plugin/jobs",
    "stockade:plugin/output",
    "stockade:plugin/prompt-store",
    "stockade:plugin/memory",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:clocks/wall-clock",
    "wasi:clocks/monotonic-clock",
    "wasi:random/random",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:filesystem/types",
    "wasi:filesystem/preopens",
    "wasi:cli/exit",
    "wasi:cli/environment",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
];

/// All that is offered, linked once per engine.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    type Own = HasSelf<Guest>;
    bindings::types::add_to_linker::<_, Own>(l, |g| g)?;
    bindings::telemetry::add_to_linker::<_, Own>(l, |g| g)?;
    bindings::config::add_to_linker::<_, Own>(l, |g| g)?;
    bindings::system::add_to_linker::<_, Own>(l, |g| g)?;
    bindings::inference::add_to_linker::<_, Own>(l, |g| g)?;
    bindings::state::add_to_linker::<_, Own>(l, |g| g)?;
    bindings::vectors::add_to_linker::<_, Own>(l, |g| g)?;
    bindings::secrets::add_to_linker::<_, Own>(l, |g| g)?;
    bindings::http::add_to_linker::<_, Own>(l, |g| g)?;
    bindings::tools::add_to_linker::<_, Own>(l, |g| g)?;
    bindings::shields::add_to_linker::<_, Own>(l, |g| g)?;
    bindings::datasets::add_to_linker::<_, Own>(l, |g| g)?;
    bindings::jobs::add_to_linker::<_, Own>(l, |g| g)?;
    bindings::output::add_to_linker::<_, Own>(l, |g| g)?;
    bindings::prompt_store::add_to_linker::<_, Own>(l, |g| g)?;
    bindings::memory::add_to_linker::<_, Own>(l, |g| g)?;
    wasi(l)?;
    Ok(linker)
}

/// WASI 0.2 without sockets.
fn wasi(l: &mut Linker<Guest>) -> wasmtime::Result<()> {
    use wasmtime_wasi::cli::{WasiCli, WasiCliView};
    use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
    use wasmtime_wasi::p2;
    use wasmtime_wasi::p2::bindings::{cli, filesystem, random};
    use wasmtime_wasi::random::{WasiRandom, WasiRandomView};

    // Input and output, clocks, strong randomness, standard streams.
    p2::add_to_linker_proxy_interfaces_async(l)?;
    random::insecure::add_to_linker::<Guest, WasiRandom>(l, |g| g.random())?;
    random::insecure_seed::add_to_linker::<Guest, WasiRandom>(l, |g| g.random())?;
    filesystem::types::add_to_linker::<Guest, WasiFilesystem>(l, |g| g.filesystem())?;
    filesystem::preopens::add_to_linker::<Guest, WasiFilesystem>(l, |g| g.filesystem())?;
    cli::exit::add_to_linker::<Guest, WasiCli>(l, |g| g.cli())?;
    cli::environment::add_to_linker::<Guest, WasiCli>(l, |g| g.cli())?;
    cli::terminal_input::add_to_linker::<Guest, WasiCli>(l, |g| g.cli())?;
    cli::terminal_output::add_to_linker::<Guest, WasiCli>(l, |g| g.cli())?;
    cli::terminal_stdin::add_to_linker::<Guest, WasiCli>(l, |g| g.cli())?;
    cli::terminal_stdout::add_to_linker::<Guest, WasiCli>(l, |g| g.cli())?;
    cli::terminal_stderr::add_to_linker::<Guest, WasiCli>(l, |g| g.cli())?;
    Ok(())
}

impl types::Host for Guest {}

/// A call into the host under way: what it needs of the store, taken out of it.
pub(crate) struct Entered {
    pub host: Arc<Inner>,
    pub context: Arc<Context>,
    pub meter: Arc<Meter>,
    pub turn: Option<TurnState>,
    _under_way: OwnedSemaphorePermit,
}

impl Entered {
    pub fn grants(&self) -> &Grants {
        self.context.grants()
    }

    /// The component that calls.
    pub fn component(&self) -> &ComponentName {
        &self.context.call.target.component.name
    }

    /// Checks a role that another component stands in.
    pub fn may_call(&self, role: &str) -> Result<(), types::Error> {
        if Grants::allows(&self.grants().components, role) { Ok(()) } else { Err(denied("components", role)) }
    }
}

/// Begins an asynchronous call: counts it, and waits while too many are under way or come too fast.
pub(crate) async fn enter<T: Send>(accessor: &Accessor<T, HasSelf<Guest>>) -> wasmtime::Result<Entered> {
    let (host, context, meter, turn, at_once) = accessor.with(|mut store| {
        let guest = store.get();
        guest.meter.host_call()?;
        Ok::<_, wasmtime::Error>((
            guest.host.clone(),
            guest.context.clone(),
            guest.meter.clone(),
            guest.turn.clone(),
            guest.at_once.clone(),
        ))
    })?;
    if let Some(wait) = meter.pace(host.settings.host_calls_per_second) {
        tokio::time::sleep(wait).await;
    }
    let under_way = at_once.acquire_owned().await?;
    Ok(Entered { host, context, meter, turn, _under_way: under_way })
}

/// Hands a call on to the one component that the tenant has bound to `role`.
pub(crate) async fn pass<T, P, R>(
    accessor: &Accessor<T, HasSelf<Guest>>,
    role: &Role,
    export: Export,
    params: P,
) -> Answer<R>
where
    T: Send + 'static,
    P: ComponentNamedList + Lower + Send + Sync + 'static,
    R: ComponentType + Lift + Send + Sync + 'static,
{
    let me = enter(accessor).await?;
    if let Err(e) = me.may_call(&role.to_string()) {
        return Ok(Err(e));
    }
    let Some(bound) = me.context.call.pins.one(role) else {
        let text = format!("nothing is bound to `{role}`");
        return Ok(Err(types::Error::Unavailable(text)));
    };
    let asked = me.host.ask(me.context.child(bound), export, params);
    Ok(asked.await.map_err(|stop| stop.into_guest_error()))
}

/// The answer to a call that no grant covers, in the words of the grants' own record.
pub(crate) fn denied(grant: &str, name: &str) -> types::Error {
    types::Error::Denied(format!("{grant}: {name}"))
}
