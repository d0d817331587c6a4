//! Models that tenants have trained here: where their files are, and whose they are.
//!
//! A tenant's model is served as `TENANT/NAME`, the default tenant's as `NAME`. Nobody but its tenant sees it.
//!
//! Invariant: a name that has been a tenant's in this process is nobody else's, not even once its record is gone: the
//! engine may serve it a while longer.

use super::{Registry, RegistryError, keys, now, parse, to_bytes};
use crate::id::{ModelId, TenantId};
use crate::infer::ModelInfo;
use crate::store::{Batch, Expect, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Most models of a tenant.
const MAX_MODELS: usize = 256;
/// Rows read at once.
const STRIDE: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainedModel {
    pub tenant: TenantId,
    /// As its tenant calls it.
    pub name: String,
    /// A folder's name among those of trained models.
    pub folder: String,
    /// For an adapter: the served model that it lies over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<ModelId>,
    /// The job that made it, and the step of the checkpoint where it is not the job's end.
    pub job: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// Seconds since 1970.
    #[serde(default)]
    pub created_at: u64,
}

impl TrainedModel {
    /// The name that the engine knows a tenant's model by.
    pub fn served_as(tenant: &TenantId, name: &str) -> Result<ModelId, RegistryError> {
        let whole = match *tenant == TenantId::default_tenant() {
            true => name.to_string(),
            false => format!("{tenant}/{name}"),
        };
        ModelId::new(&whole).map_err(|e| RegistryError::invalid("name", e.to_string()))
    }

    pub fn id(&self) -> Result<ModelId, RegistryError> {
        Self::served_as(&self.tenant, &self.name)
    }
}

/// Whose the trained models of this process are or were.
#[derive(Default)]
pub(super) struct Owners(Mutex<HashMap<ModelId, TenantId>>);

impl Owners {
    fn of(&self, id: &ModelId) -> Option<TenantId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
    fn note(&self, id: ModelId, tenant: &TenantId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, tenant.clone());
    }
    fn all(&self) -> Vec<ModelId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

impl Registry {
    /// Whether a tenant sees the model that the engine serves as `id`. Where it does not, it must look as if there were
    /// none.
    pub fn sees_model(&self, tenant: &TenantId, id: &ModelId) -> Result<bool, RegistryError> {
        match self.inner.owners.of(id) {
            None => Ok(true),
            Some(owner) if owner != *tenant => Ok(false),
            Some(_) => Ok(self.store().get(&keys::trained_model(id))?.is_some()),
        }
    }

    /// Whether the model is one that this tenant has trained.
    pub fn owns_model(&self, tenant: &TenantId, id: &ModelId) -> Result<bool, RegistryError> {
        Ok(self.inner.owners.of(id).as_ref() == Some(tenant) && self.sees_model(tenant, id)?)
    }

    /// Of the models that are served, those that the tenant may use, in their order: its quota's and its own.
    pub fn models_seen(&self, tenant: &TenantId, served: Vec<ModelInfo>) -> Result<Vec<ModelInfo>, RegistryError> {
        let allowed = self.tenant(tenant)?.and_then(|t| t.quotas.models);
        let mut models = Vec::new();
        for model in served {
            let allowed = allowed.as_ref().is_none_or(|list| list.iter().any(|a| a == model.id.as_str()));
            let seen = match allowed {
                true => self.sees_model(tenant, &model.id)?,
                false => self.owns_model(tenant, &model.id)?,
            };
            if seen {
                models.push(model);
            }
        }
        Ok(models)
    }

    /// The one of this name; one that the tenant has trained goes by its own name.
    pub fn model_seen(
        &self,
        tenant: &TenantId,
        served: Vec<ModelInfo>,
        name: &str,
    ) -> Result<Option<ModelInfo>, RegistryError> {
        let own = TrainedModel::served_as(tenant, name).ok();
        let mut models = self.models_seen(tenant, served)?;
        let found = models.iter().position(|m| m.id.as_str() == name);
        let found = found.or_else(|| models.iter().position(|m| Some(&m.id) == own.as_ref()));
        Ok(found.map(|at| models.swap_remove(at)))
    }

    /// All trained models. To be asked once before the first request: from then on, each is seen by its tenant alone.
    pub fn trained_models(&self) -> Result<Vec<TrainedModel>, RegistryError> {
        let prefix = keys::TRAINED_MODELS.as_bytes();
        let (mut found, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let rows = self.store().scan(prefix, after.as_deref(), STRIDE)?;
            let Some(last) = rows.last() else { return Ok(found) };
            after = Some(last.key.to_vec());
            for row in &rows {
                let model: TrainedModel = parse("trained model", &row.value)?;
                self.inner.owners.note(model.id()?, &model.tenant);
                found.push(model);
            }
        }
    }

    pub fn trained_model(&self, id: &ModelId) -> Result<Option<TrainedModel>, RegistryError> {
        let row = self.store().get(&keys::trained_model(id))?;
        row.map(|r| parse("trained model", &r.value)).transpose()
    }

    /// Models that were served for a tenant and are to be served no longer.
    pub fn abandoned_models(&self) -> Result<Vec<ModelId>, RegistryError> {
        let mut gone = Vec::new();
        for id in self.inner.owners.all() {
            if self.store().get(&keys::trained_model(&id))?.is_none() {
                gone.push(id);
            }
        }
        Ok(gone)
    }

    /// Writes that a tenant has a model, in place of an earlier one of its name. Whoever serves it does so after this.
    ///
    /// # Errors
    /// [`RegistryError::TooLarge`] when the tenant has as many as it may, [`RegistryError::Exists`] for a name of another's.
    pub async fn put_trained_model(&self, model: TrainedModel) -> Result<ModelId, RegistryError> {
        let id = model.id()?;
        let key = keys::trained_model(&id);
        let others = self.trained_models()?.into_iter().filter(|m| m.tenant == model.tenant && m.name != model.name);
        let others = others.count();
        if others >= MAX_MODELS {
            return Err(RegistryError::TooLarge { what: "set of models", size: others + 1, limit: MAX_MODELS });
        }
        // `NAME` of the default tenant may hold a `/` and so spell another tenant's.
        if self.inner.owners.of(&id).is_some_and(|owner| owner != model.tenant) {
            return Err(RegistryError::Exists { what: "model", name: model.name });
        }
        self.inner.owners.note(id.clone(), &model.tenant);
        let record = to_bytes(&TrainedModel { created_at: now(), ..model.clone() })?;
        let batch = Batch::new().expect(keys::tenant(&model.tenant), Expect::Present).put(key, record);
        match self.store().commit(batch).await {
            Ok(_) => Ok(id),
            Err(StoreError::Conflict { .. }) => {
                Err(RegistryError::NotFound { what: "tenant", name: model.tenant.to_string() })
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Forgets a tenant's model; `None` when it has none of this id.
    pub async fn delete_trained_model(
        &self,
        tenant: &TenantId,
        id: &ModelId,
    ) -> Result<Option<TrainedModel>, RegistryError> {
        let found = self.trained_model(id)?.filter(|m| m.tenant == *tenant);
        if found.is_some() {
            self.store().commit(Batch::new().delete(keys::trained_model(id))).await?;
        }
        Ok(found)
    }

    pub(super) async fn purge_models(&self, tenant: &TenantId) -> Result<(), RegistryError> {
        for model in self.trained_models()?.into_iter().filter(|m| m.tenant == *tenant) {
            self.store().commit(Batch::new().delete(keys::trained_model(&model.id()?))).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{MemoryStore, Quotas};
    use std::sync::Arc;

    fn model(tenant: &TenantId, name: &str) -> TrainedModel {
        TrainedModel {
            tenant: tenant.clone(),
            name: name.into(),
            folder: "f".into(),
            base: None,
            job: "job_1".into(),
            step: None,
            created_at: 0,
        }
    }

    #[tokio::test]
    async fn a_trained_model_is_its_tenants_alone_and_stays_hidden_when_the_tenant_is_gone() {
        let store = Arc::new(MemoryStore::new());
        let registry = Registry::new(store.clone(), store.clone());
        registry.ensure_default_tenant().await.unwrap();
        let alice = TenantId::new("alice").unwrap();
        registry.create_tenant(alice.clone(), Quotas::default()).await.unwrap();
        let default = TenantId::default_tenant();
        let id = registry.put_trained_model(model(&alice, "mine")).await.unwrap();
        assert_eq!(id.as_str(), "alice/mine");
        assert!(registry.owns_model(&alice, &id).unwrap());
        assert!(!registry.sees_model(&default, &id).unwrap());
        let plain = registry.put_trained_model(model(&default, "mine")).await.unwrap();
        assert_eq!(plain.as_str(), "mine");
        assert!(!registry.sees_model(&alice, &plain).unwrap());
        assert!(registry.sees_model(&alice, &ModelId::new("public").unwrap()).unwrap());
        let spelled = registry.put_trained_model(model(&default, "alice/mine")).await.unwrap_err();
        assert!(matches!(spelled, RegistryError::Exists { .. }));

        // After a restart the same holds once the records are read.
        let again = Registry::new(store.clone(), store);
        assert_eq!(again.trained_models().unwrap().len(), 2);
        assert!(!again.sees_model(&default, &id).unwrap());

        again.delete_tenant(&alice).await.unwrap();
        assert!(!again.sees_model(&default, &id).unwrap());
        assert_eq!(again.abandoned_models().unwrap(), std::slice::from_ref(&id));
        again.create_tenant(alice.clone(), Quotas::default()).await.unwrap();
        assert!(!again.sees_model(&alice, &id).unwrap(), "a new tenant of the name inherits nothing");
    }
}
