//! The way of an upload: gate, compiler, trial. Nothing of a refused upload stays.

use crate::bindings::types;
use crate::compile::{self, CompileError};
use crate::exports;
use crate::gate::{self, Inspected};
use crate::guest::Context;
use crate::runtime::Inner;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use stockade_core::id::{ComponentName, RequestId, Version};
use stockade_core::limits::Limits;
use stockade_core::plugin::{AdmitError, Admitted, Call, CallError, Grants, Pinned, PluginKind, Reason, Role};
use stockade_core::{ComponentRef, Digest, TenantId};

/// Wall and processor time of the trial.
const TRIAL_MS: u64 = 5_000;

/// One upload of a tenant is compiled at a time.
#[derive(Default)]
pub(crate) struct Uploads {
    tenants: parking_lot::Mutex<HashMap<TenantId, Arc<tokio::sync::Mutex<()>>>>,
}

pub(crate) async fn admit(host: Arc<Inner>, tenant: TenantId, bytes: Bytes) -> Result<Admitted, AdmitError> {
    let limit = host.settings.compile.max_bytes;
    if bytes.len() > limit {
        return Err(AdmitError::TooLarge { size: bytes.len(), limit });
    }
    let upload = bytes.clone();
    let inspecting = host.threads.spawn_blocking(move || {
        let digest = Digest(Sha256::digest(&upload).into());
        gate::inspect(&upload).map(|inspected| (digest, inspected))
    });
    let inspected = inspecting.await.map_err(|e| failed("the gate", e))?;
    let (digest, inspected) = inspected.map_err(invalid)?;

    let turn = host.uploads.tenants.lock().entry(tenant.clone()).or_default().clone();
    let _turn = turn.lock().await;
    let _keeping = host.under_way.begin(digest);
    let admitted = compile_and_try(&host, &tenant, digest, &bytes, inspected).await;
    host.uploads.forget(&tenant, &turn);
    admitted
}

impl Uploads {
    /// Keeps no tenant that has no other upload waiting: the map's and the caller's own are two.
    fn forget(&self, tenant: &TenantId, turn: &Arc<tokio::sync::Mutex<()>>) {
        let mut tenants = self.tenants.lock();
        if Arc::strong_count(turn) <= 2 {
            tenants.remove(tenant);
        }
    }
}

async fn compile_and_try(
    host: &Arc<Inner>,
    tenant: &TenantId,
    digest: Digest,
    bytes: &Bytes,
    inspected: Inspected,
) -> Result<Admitted, AdmitError> {
    let machine = host.machine(false).map_err(|e| failed("starting the engine", e))?;
    let artifact = machine.artifact(digest);
    let began = Instant::now();
    let known = artifact.exists();
    if !known {
        let compiled = compile::run(host, false, bytes, &artifact).await;
        compiled.map_err(|e| match e {
            CompileError::Refused { found, expected } => {
                invalid(vec![Reason { at: "compilation".into(), found, expected }])
            }
            CompileError::Overloaded => AdmitError::Overloaded,
            CompileError::Host { stage, source } => AdmitError::Host { stage, source },
        })?;
    }
    let compile_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);

    let tried = trial(host, tenant, digest, &inspected).await;
    let warnings = match tried {
        Ok(warnings) => warnings,
        Err(e) => {
            // The artifact of a component that was never admitted; it may be gone already.
            if !known {
                let _ = std::fs::remove_file(&artifact);
            }
            return Err(e);
        }
    };
    Ok(Admitted {
        digest,
        size_bytes: bytes.len() as u64,
        roles: inspected.kinds,
        imports: inspected.imports,
        exports: inspected.exports,
        grants_wanted: inspected.wanted,
        compile_ms,
        warnings: [inspected.warnings, warnings].concat(),
        manifest: inspected.manifest,
    })
}

/// Links and instantiates it, compares its exports with the API, and calls what answers without input.
async fn trial(
    host: &Arc<Inner>,
    tenant: &TenantId,
    digest: Digest,
    inspected: &Inspected,
) -> Result<Vec<String>, AdmitError> {
    let machine = host.machine(false).map_err(|e| failed("starting the engine", e))?;
    machine.open(digest).map_err(|e| {
        invalid(vec![Reason {
            at: "imports".into(),
            found: format!("{e:#}"),
            expected: "the functions and types that the host offers".into(),
        }])
    })?;

    let context = trial_context(host, tenant, digest).map_err(|e| failed("the trial", e))?;
    let kinds = inspected.kinds.clone();
    let name = context.call.target.component.to_string();
    let run = host.run(context, "trial".into(), None, move |live| {
        Box::pin(async move {
            let (instance, mut missing) = (live.instance, Vec::new());
            for kind in &kinds {
                missing.extend(exports::missing(&mut live.store, instance, *kind));
            }
            let mut warnings = Vec::new();
            if missing.is_empty() {
                // A component may need its configuration for these, so a failure is a warning.
                for kind in kinds {
                    let answered = match kind {
                        PluginKind::Shield => {
                            let asked = live.call::<(), (u32,)>(exports::SHIELD_HOLD_BACK, ());
                            asked.await.map(|_| ())
                        }
                        PluginKind::Tool => {
                            let asked = live.call::<(), (types::ToolSpec,)>(exports::TOOL_DESCRIBE, ());
                            asked.await.map(|_| ())
                        }
                        _ => Ok(()),
                    };
                    if let Err(e) = answered {
                        warnings.push(format!("its trial call without configuration failed: {e}"));
                        break;
                    }
                }
            }
            Ok(Ok((missing, warnings)))
        })
    });
    match run.await.map_err(|stop| stop.into_call_error(&name)) {
        Ok((missing, warnings)) if missing.is_empty() => Ok(warnings),
        Ok((missing, _)) => Err(invalid(missing)),
        Err(CallError::Failed { limit, detail, .. }) => Err(invalid(vec![Reason {
            at: "trial instantiation".into(),
            found: format!("{}: {detail}", limit.as_str()),
            expected: "an instance within the default limits".into(),
        }])),
        Err(CallError::Overloaded) => Err(AdmitError::Overloaded),
        Err(e) => Err(failed("the trial", e)),
    }
}

fn trial_context(
    host: &Inner,
    tenant: &TenantId,
    digest: Digest,
) -> Result<Arc<Context>, stockade_core::id::NameError> {
    let name = ComponentName::new("upload")?;
    let defaults = host.settings.default_limits;
    let limits = Limits {
        deadline_ms: defaults.deadline_ms.min(TRIAL_MS),
        cpu_ms: defaults.cpu_ms.min(TRIAL_MS),
        fuel: 0,
        ..defaults
    };
    let component = ComponentRef { name: name.clone(), version: Version::new("trial")?, digest };
    let grants = Grants { limits: Some(limits), ..Grants::default() };
    let target = Pinned::new(Role::Tool(name), component, serde_json::Value::Null, grants);
    Ok(Context::new(Call {
        tenant: tenant.clone(),
        request: RequestId("upload".into()),
        target: Arc::new(target),
        pins: Arc::default(),
        trace: Arc::default(),
        depth: 0,
    }))
}

fn invalid(reasons: Vec<Reason>) -> AdmitError {
    AdmitError::Invalid { reasons }
}

fn failed(stage: &'static str, source: impl Into<stockade_core::BoxError>) -> AdmitError {
    AdmitError::Host { stage, source: source.into() }
}
