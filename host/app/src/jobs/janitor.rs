//! Removes what no record names any more: folders of deleted jobs, models and jobs of tenants that are gone.

use std::path::Path;
use stockade_core::TenantId;
use stockade_core::registry::{Registry, RegistryError};
use stockade_infer::Engine;

pub fn sweep(registry: &Registry, engine: Option<&Engine>, jobs: &Path) {
    match registry.abandoned_models() {
        // Their folders go at the next start.
        Ok(models) => models.iter().for_each(|id| {
            engine.map(|engine| engine.remove(id));
        }),
        Err(e) => tracing::warn!(error = %e, "trained models cannot be read"),
    }
    for tenant in entries(jobs) {
        let Ok(id) = TenantId::new(&tenant) else { continue };
        for job in entries(&jobs.join(&tenant)) {
            match is_gone(registry, &id, &job) {
                Ok(true) => {
                    if let Err(e) = std::fs::remove_dir_all(jobs.join(&tenant).join(&job)) {
                        tracing::warn!(tenant, job, error = %e, "a job's folder cannot be removed");
                    }
                }
                Ok(false) => {}
                Err(e) => tracing::warn!(error = %e, "jobs cannot be read"),
            }
        }
    }
}

fn is_gone(registry: &Registry, tenant: &TenantId, job: &str) -> Result<bool, RegistryError> {
    Ok(registry.job(tenant, job)?.is_none())
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|e| e.path().is_dir()).filter_map(|e| e.file_name().into_string().ok()).collect()
}
