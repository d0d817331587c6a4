//! The tool `file_search` of a response: the tenant's `rag` component in place of the bound orchestrator, over the vector
//! stores that the request names and nothing else, with the tenant's tools that it names beside.

use crate::app::App;
use crate::dialect::vector_stores::{self, search};
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use crate::held;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use stockade_core::TenantId;
use stockade_core::id::ComponentName;
use stockade_core::plugin::{Bank, Banks, Pins, PluginKind, Role};

/// The orchestrator that searches.
const RAG: &str = "rag";
/// Most vector stores of one request.
const MAX_STORES: usize = 16;
/// Results when the request does not say.
const DEFAULT_RESULTS: i64 = 10;
/// Tokens of what was found that the model is given.
pub const SOURCE_TOKENS: u32 = 1_500;

/// What is searched, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct FileSearch {
    stores: Vec<String>,
    results: i64,
    filter: Option<Map<String, Value>>,
    ranking: Map<String, Value>,
}

impl FileSearch {
    /// `{vector_store_ids, max_num_results?, filters?, ranking_options?}`.
    pub fn read(tool: &Fields) -> Result<Self, ApiError> {
        let ids = tool.array("vector_store_ids")?.map_or(&[][..], Vec::as_slice);
        if !(1..=MAX_STORES).contains(&ids.len()) {
            return Err(tool.wrong("vector_store_ids", format!("1 to {MAX_STORES}")));
        }
        let stores = ids.iter().map(|id| id.as_str().map(String::from)).collect::<Option<_>>();
        Ok(Self {
            stores: stores.ok_or_else(|| tool.wrong("vector_store_ids", "must be ids"))?,
            results: tool.integer("max_num_results", 1..=50)?.unwrap_or(DEFAULT_RESULTS),
            filter: tool.object("filters")?.map(|f| f.map().clone()),
            ranking: search::options(tool)?,
        })
    }

    /// Whether the stores are there and not expired; their expiry moves on.
    pub async fn check(&self, app: &App, tenant: &TenantId) -> Result<(), ApiError> {
        for store in &self.stores {
            vector_stores::active(app, tenant, store).await?;
        }
        Ok(())
    }

    /// Pins with the searching orchestrator, which sees these stores alone. The system prompt, the bounds and what has to
    /// be approved stay the bound one's.
    pub fn over(&self, app: &App, tenant: &TenantId, mut pins: Pins) -> Result<Pins, ApiError> {
        let unserved = || ApiError::new(Code::Conflict, format!("`file_search` needs the component `{RAG}`"));
        let name = ComponentName::new(RAG).map_err(|_| unserved())?;
        let record = held::find(app, tenant, &name, PluginKind::Orchestrator)?.ok_or_else(unserved)?;
        let mut config = json!({
            "banks": self.stores,
            "limit": self.results,
            "ranking": self.ranking,
            "source_tokens": SOURCE_TOKENS,
            "attribute": true,
            "no_hit": "answer",
        });
        if let Some(filter) = &self.filter {
            config["filter"] = json!(filter);
        }
        let bound = pins.one(&Role::Orchestrator);
        for field in ["system", "prompt", "approve", "limits"] {
            if let Some(value) = bound.and_then(|b| b.config.get(field)) {
                config[field] = value.clone();
            }
        }
        let pinned = held::pin(app, tenant, Role::Orchestrator, &record, config)?;
        pins.entries.insert(Role::Orchestrator, vec![Arc::new(pinned)]);
        let bank = |store: &String| (store.clone(), Bank { scoped: store.clone(), write: false });
        pins.banks = Some(Banks(self.stores.iter().map(bank).collect()));
        Ok(pins)
    }
}
