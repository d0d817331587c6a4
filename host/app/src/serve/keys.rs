//! The first admin key: from `STOCKADE_ADMIN_KEY`, else made at the first start, shown once, and kept hashed.

use crate::failure::{Exit, Failure};
use stockade_core::registry::{Registry, secret_text};

pub enum AdminKey {
    /// Made now; nobody has seen it.
    Fresh(String),
    /// Given by the environment.
    Seeded(String),
    /// An earlier start made it.
    Kept,
}

pub async fn seed(registry: &Registry) -> Result<AdminKey, Failure> {
    registry.ensure_default_tenant().await.map_err(crate::commands::data::failed)?;
    let failed = |e: stockade_core::registry::RegistryError| crate::commands::data::failed(e);
    if let Ok(key) = std::env::var("STOCKADE_ADMIN_KEY") {
        if key.len() < 16 {
            return Err(Failure::new(Exit::Usage, "STOCKADE_ADMIN_KEY is shorter than 16 bytes"));
        }
        registry.set_operator_key(&key).await.map_err(failed)?;
        return Ok(AdminKey::Seeded(key));
    }
    if registry.has_operator_key().map_err(failed)? {
        return Ok(AdminKey::Kept);
    }
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|e| Failure::new(Exit::Failed, format!("no randomness: {e}")))?;
    let key = secret_text(random);
    registry.set_operator_key(&key).await.map_err(failed)?;
    Ok(AdminKey::Fresh(key))
}
