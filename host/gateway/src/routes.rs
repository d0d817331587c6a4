//! All routes, once: the router and the OpenAPI document are built from this one table.

use crate::app::App;
use crate::dialect::openai::{chat, completions, embeddings, models};
use crate::dialect::post_training::{self, datasets as llama_datasets};
use crate::dialect::safety::{moderations, run_shield, shields};
use crate::dialect::tools::{groups, runtime};
use crate::dialect::{
    agents, conversations, files, fine_tuning, mcp, prompts as llama, responses, tokenizer, vector_stores,
};
use crate::host::{
    assistants, bindings, components, datasets, interruptions, jobs, keys, prompts, secrets, state, tenants, traces,
};
use crate::{health, layers, openapi};
use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use std::collections::BTreeMap;

/// A route as the OpenAPI document tells it.
#[derive(Debug, Clone)]
pub struct Route {
    pub method: Method,
    /// In the router's form: `{name}`, `{*rest}`.
    pub path: &'static str,
    pub summary: &'static str,
    /// Name of the request body's schema, in the document's components.
    pub body: Option<&'static str>,
    /// Whether a key is needed.
    pub key: bool,
}

#[derive(Default)]
struct Table {
    paths: BTreeMap<&'static str, MethodRouter<App>>,
    routes: Vec<Route>,
}

impl Table {
    fn add<H, T>(&mut self, method: Method, path: &'static str, summary: &'static str, handler: H)
    where
        H: Handler<T, App>,
        T: 'static,
    {
        // The methods of this table are all standard ones.
        let Ok(filter) = MethodFilter::try_from(method.clone()) else {
            return;
        };
        let known = self.paths.remove(path).unwrap_or_default();
        self.paths.insert(path, known.merge(on(filter, handler)));
        self.routes.push(Route { method, path, summary, body: None, key: true });
    }

    /// The last added route takes a body of this schema.
    fn takes(&mut self, schema: &'static str) {
        if let Some(route) = self.routes.last_mut() {
            route.body = Some(schema);
        }
    }

    /// The last added route needs no key.
    fn open(&mut self) {
        if let Some(route) = self.routes.last_mut() {
            route.key = false;
        }
    }
}

/// Every served route.
pub fn all() -> Vec<Route> {
    table().routes
}

pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for (path, methods) in table().paths {
        router = router.route(path, methods);
    }
    router
        .fallback(layers::not_found)
        .method_not_allowed_fallback(layers::method_not_allowed)
        .layer(axum::middleware::from_fn_with_state(app.clone(), layers::outermost))
        .with_state(app)
}

fn table() -> Table {
    let mut t = Table::default();
    dialects(&mut t);
    host(&mut t);
    t.add(Method::GET, "/health", "Whether requests are taken", health::health);
    t.open();
    t.add(Method::GET, "/metrics", "Counters in Prometheus' form", health::metrics);
    t.open();
    t.add(Method::GET, "/openapi.json", "This document", openapi::document);
    t.open();
    t
}

fn dialects(t: &mut Table) {
    let (get, post) = (Method::GET, Method::POST);
    t.add(post.clone(), "/v1/chat/completions", "Continue a conversation", chat::create);
    t.takes("ChatCompletionRequest");
    t.add(post.clone(), "/v1/completions", "Continue a text", completions::create);
    t.takes("CompletionRequest");
    t.add(post.clone(), "/v1/embeddings", "Embed texts", embeddings::create);
    t.takes("EmbeddingRequest");
    t.add(get.clone(), "/v1/models", "Served models", models::list);
    t.add(get.clone(), "/v1/models/{*id}", "One served model", models::get);
    t.add(Method::DELETE, "/v1/models/{*id}", "Delete a model that the tenant has trained", jobs::delete_model);
    stateful(t);
    safety(t);
    documents(t);
    tools(t);
    llama_prompts(t);
    training(t);
    t.add(post.clone(), "/tokenize", "Token ids of a text or conversation", tokenizer::tokenize);
    t.takes("TokenizeRequest");
    t.add(post, "/detokenize", "Text of token ids", tokenizer::detokenize);
    t.takes("DetokenizeRequest");
    t.add(get, "/tokenizer_info", "The default model's tokenizer", tokenizer::info);
}

/// Dialects whose turns the host keeps.
fn stateful(t: &mut Table) {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let path = "/v1/responses";
    t.add(post.clone(), path, "Answer, with what came before", responses::create);
    t.takes("ResponseRequest");
    t.add(get.clone(), path, "Stored responses", responses::list);
    let path = "/v1/responses/{id}";
    t.add(get.clone(), path, "A stored response", responses::get);
    t.add(delete.clone(), path, "Delete a stored response", responses::delete);
    t.add(post.clone(), "/v1/responses/{id}/cancel", "End a background response", responses::cancel);
    t.add(get.clone(), "/v1/responses/{id}/input_items", "What a response was asked", responses::input_items);

    t.add(post.clone(), "/v1/conversations", "Make a conversation", conversations::create);
    t.takes("NewConversation");
    let path = "/v1/conversations/{id}";
    t.add(get.clone(), path, "A conversation", conversations::get);
    t.add(post.clone(), path, "Change a conversation's metadata", conversations::update);
    t.takes("ConversationChange");
    t.add(delete.clone(), path, "Delete a conversation with its items", conversations::delete);
    let path = "/v1/conversations/{id}/items";
    t.add(get.clone(), path, "A conversation's items", conversations::list_items);
    t.add(post.clone(), path, "Add items to a conversation", conversations::add_items);
    t.takes("NewItems");
    let path = "/v1/conversations/{id}/items/{item}";
    t.add(get.clone(), path, "An item", conversations::get_item);
    t.add(delete.clone(), path, "Delete an item", conversations::delete_item);

    t.add(post.clone(), "/v1/agents", "Make an agent", agents::create);
    t.takes("NewAgent");
    t.add(get.clone(), "/v1/agents", "Agents", agents::list);
    t.add(get.clone(), "/v1/agents/{agent}", "An agent", agents::get);
    t.add(delete.clone(), "/v1/agents/{agent}", "Delete an agent with its sessions", agents::delete);
    t.add(post.clone(), "/v1/agents/{agent}/session", "Begin a session", agents::create_session);
    t.takes("NewSession");
    t.add(get.clone(), "/v1/agents/{agent}/sessions", "An agent's sessions", agents::list_sessions);
    let path = "/v1/agents/{agent}/session/{session}";
    t.add(get.clone(), path, "A session with its turns", agents::get_session);
    t.add(delete, path, "Delete a session", agents::delete_session);
    t.add(post.clone(), "/v1/agents/{agent}/session/{session}/turn", "Run a turn", agents::create_turn);
    t.takes("NewTurn");
    t.add(get.clone(), "/v1/agents/{agent}/session/{session}/turn/{turn}", "A turn", agents::get_turn);
    let path = "/v1/agents/{agent}/session/{session}/turn/{turn}/resume";
    t.add(post, path, "A turn that waited goes on", agents::resume_turn);
    t.takes("TurnResumption");
    let path = "/v1/agents/{agent}/session/{session}/turn/{turn}/step/{step}";
    t.add(get, path, "A step of a turn", agents::get_step);
}

/// Files, and vector stores over the tenant's memory.
fn documents(t: &mut Table) {
    use vector_stores::{batches, files as in_store, search, vector_io};
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    t.add(get.clone(), "/v1/files", "The tenant's files", files::list);
    t.add(post.clone(), "/v1/files", "Upload a file", files::upload);
    t.takes("FileForm");
    let path = "/v1/files/{id}";
    t.add(get.clone(), path, "One file", files::get);
    t.add(delete.clone(), path, "Delete a file with its bytes", files::delete);
    t.add(get.clone(), "/v1/files/{id}/content", "A file's bytes", files::content);

    let path = "/v1/vector_stores";
    t.add(get.clone(), path, "The tenant's vector stores", vector_stores::list);
    t.add(post.clone(), path, "Make a vector store", vector_stores::create);
    t.takes("NewVectorStore");
    let path = "/v1/vector_stores/{id}";
    t.add(get.clone(), path, "One vector store", vector_stores::get);
    t.add(post.clone(), path, "Change a vector store", vector_stores::update);
    t.takes("NewVectorStore");
    t.add(delete.clone(), path, "Delete a vector store", vector_stores::delete);
    t.add(post.clone(), "/v1/vector_stores/{id}/search", "Find chunks", search::search);
    t.takes("VectorStoreSearch");

    let path = "/v1/vector_stores/{id}/files";
    t.add(get.clone(), path, "A store's files", in_store::list);
    t.add(post.clone(), path, "Put a file into a store", in_store::create);
    t.takes("FileInStore");
    let path = "/v1/vector_stores/{id}/files/{file}";
    t.add(get.clone(), path, "One file of a store", in_store::get);
    t.add(post.clone(), path, "Change a file's attributes", in_store::update);
    t.takes("FileInStore");
    t.add(delete, path, "Take a file out of a store", in_store::delete);
    t.add(get.clone(), "/v1/vector_stores/{id}/files/{file}/content", "A file's chunks", in_store::content);

    let path = "/v1/vector_stores/{id}/file_batches";
    t.add(post.clone(), path, "Put many files into a store", batches::create);
    t.takes("FileInStore");
    t.add(get.clone(), "/v1/vector_stores/{id}/file_batches/{batch}", "One batch", batches::get);
    let path = "/v1/vector_stores/{id}/file_batches/{batch}/cancel";
    t.add(post.clone(), path, "Leave out what is not done yet", batches::cancel);
    let path = "/v1/vector_stores/{id}/file_batches/{batch}/files";
    t.add(get, path, "A batch's files", batches::list_files);

    t.add(post.clone(), "/v1/vector-io/insert", "Put chunks into a store", vector_io::insert);
    t.takes("ChunkInsert");
    t.add(post, "/v1/vector-io/query", "Find chunks in Llama Stack's shape", vector_io::query);
    t.takes("ChunkQuery");
}

/// Shields called by name.
fn safety(t: &mut Table) {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    t.add(post.clone(), "/v1/moderations", "Judge texts by category", moderations::create);
    t.takes("ModerationRequest");
    t.add(post.clone(), "/v1/safety/run-shield", "Judge a conversation by one shield", run_shield::run);
    t.takes("RunShieldRequest");
    t.add(get.clone(), "/v1/shields", "Shields that can be called by name", shields::list);
    t.add(post, "/v1/shields", "Bind a shield to a name", shields::register);
    t.takes("NewShield");
    t.add(get, "/v1/shields/{name}", "One shield", shields::get);
    t.add(delete, "/v1/shields/{name}", "Unbind a shield's name", shields::unregister);
}

fn tools(t: &mut Table) {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    t.add(get.clone(), "/v1/tool-runtime/list-tools", "Tools, of a group or all", runtime::list);
    t.add(post.clone(), "/v1/tool-runtime/invoke", "Call a tool", runtime::invoke);
    t.takes("ToolInvocation");
    t.add(get.clone(), "/v1/tools", "Tools, of a group or all", runtime::list);
    t.add(get.clone(), "/v1/tools/{name}", "One tool", runtime::get);
    t.add(get.clone(), "/v1/toolgroups", "Tool groups", groups::list);
    t.add(post.clone(), "/v1/toolgroups", "Bind a component as a tool group", groups::register);
    t.takes("ToolGroup");
    t.add(get, "/v1/toolgroups/{*id}", "One tool group", groups::get);
    t.add(delete, "/v1/toolgroups/{*id}", "Unbind a tool group", groups::delete);
    t.add(post, "/mcp", "The tools as an MCP server", mcp::serve);
    t.takes("Any");
}

/// Finetuning in OpenAI's shape, post-training and data sets in Llama Stack's.
fn training(t: &mut Table) {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let path = "/v1/fine_tuning/jobs";
    t.add(post.clone(), path, "Finetune a model", fine_tuning::create);
    t.takes("FineTuningRequest");
    t.add(get.clone(), path, "Finetuning jobs", fine_tuning::list);
    t.add(get.clone(), "/v1/fine_tuning/jobs/{id}", "One finetuning job", fine_tuning::get);
    t.add(post.clone(), "/v1/fine_tuning/jobs/{id}/cancel", "End a finetuning job", fine_tuning::cancel);
    t.add(post.clone(), "/v1/fine_tuning/jobs/{id}/pause", "Pause a finetuning job", fine_tuning::pause);
    t.add(post.clone(), "/v1/fine_tuning/jobs/{id}/resume", "A paused finetuning job goes on", fine_tuning::resume);
    t.add(get.clone(), "/v1/fine_tuning/jobs/{id}/events", "A finetuning job's events", fine_tuning::events);
    let path = "/v1/fine_tuning/jobs/{id}/checkpoints";
    t.add(get.clone(), path, "A finetuning job's checkpoints", fine_tuning::checkpoints);

    // Clients up to 0.2 say `/v1`, later ones `/v1alpha` and `/v1beta`.
    let path = "/v1alpha/post-training/supervised-fine-tune";
    for path in [path, "/v1/post-training/supervised-fine-tune"] {
        t.add(post.clone(), path, "Finetune a model on demonstrations", post_training::supervised);
        t.takes("PostTrainingRequest");
    }
    let path = "/v1alpha/post-training/preference-optimize";
    for path in [path, "/v1/post-training/preference-optimize"] {
        t.add(post.clone(), path, "Finetune a model on preferences", post_training::preference);
        t.takes("PostTrainingRequest");
    }
    for path in ["/v1alpha/post-training/jobs", "/v1/post-training/jobs"] {
        t.add(get.clone(), path, "Training jobs", post_training::list);
    }
    for path in ["/v1alpha/post-training/job/status", "/v1/post-training/job/status"] {
        t.add(get.clone(), path, "A training job's status, by `job_uuid`", post_training::status);
    }
    for path in ["/v1alpha/post-training/job/artifacts", "/v1/post-training/job/artifacts"] {
        t.add(get.clone(), path, "What a training job has made, by `job_uuid`", post_training::artifacts);
    }
    for path in ["/v1alpha/post-training/job/cancel", "/v1/post-training/job/cancel"] {
        t.add(post.clone(), path, "End a training job", post_training::cancel);
        t.takes("JobUuid");
    }
    let path = "/v1alpha/post-training/jobs/{uuid}/status";
    t.add(get.clone(), path, "A training job's status", post_training::status_of);
    let path = "/v1alpha/post-training/jobs/{uuid}/artifacts";
    t.add(get.clone(), path, "What a training job has made", post_training::artifacts_of);
    let path = "/v1alpha/post-training/jobs/{uuid}/cancel";
    t.add(post.clone(), path, "End a training job", post_training::cancel_of);

    let path = "/v1beta/datasets";
    t.add(get.clone(), path, "Data sets", llama_datasets::list);
    t.add(post, path, "Make a data set of rows", llama_datasets::register);
    t.takes("DatasetRegistration");
    t.add(get.clone(), "/v1beta/datasets/{id}", "One data set", llama_datasets::get);
    t.add(delete, "/v1beta/datasets/{id}", "Delete a data set", llama_datasets::unregister);
    t.add(get, "/v1beta/datasetio/iterrows/{id}", "A data set's rows", llama_datasets::iterate);
}

/// Jobs and the data that they read.
fn jobs_and_data(t: &mut Table) {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let path = "/stockade/v1/jobs";
    t.add(post.clone(), path, "Queue a job", jobs::create);
    t.takes("NewJob");
    t.add(get.clone(), path, "The tenant's jobs", jobs::list);
    let path = "/stockade/v1/jobs/{id}";
    t.add(get.clone(), path, "One job", jobs::get);
    t.add(delete.clone(), path, "Delete a job that has ended", jobs::delete);
    let path = "/stockade/v1/jobs/{id}/events";
    t.add(get.clone(), path, "A job's events as they come, after `Last-Event-ID`", jobs::events);
    t.add(post.clone(), "/stockade/v1/jobs/{id}/pause", "Pause a job", jobs::pause);
    t.add(post.clone(), "/stockade/v1/jobs/{id}/resume", "A paused job goes on", jobs::resume);
    t.add(post.clone(), "/stockade/v1/jobs/{id}/cancel", "End a job", jobs::cancel);
    t.add(get.clone(), "/stockade/v1/jobs/{id}/checkpoints", "A job's checkpoints", jobs::checkpoints);
    let path = "/stockade/v1/jobs/{id}/checkpoints/{step}/serve";
    t.add(post.clone(), path, "Serve a checkpoint", jobs::serve_checkpoint);
    t.takes("ServedCheckpoint");

    let path = "/stockade/v1/datasets";
    t.add(post, path, "Make a data set", datasets::create);
    t.takes("NewDataset");
    t.add(get.clone(), path, "The tenant's data sets", datasets::list);
    t.add(get, "/stockade/v1/datasets/{name}", "One data set", datasets::get);
    t.add(delete, "/stockade/v1/datasets/{name}", "Delete a data set", datasets::delete);
}

fn host(t: &mut Table) {
    let (get, post, put, patch, delete) = (Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE);
    let path = "/stockade/v1/tenants";
    t.add(post.clone(), path, "Make a tenant", tenants::create);
    t.takes("NewTenant");
    t.add(get.clone(), path, "Tenants in reach", tenants::list);
    let path = "/stockade/v1/tenants/{id}";
    t.add(get.clone(), path, "One tenant", tenants::get);
    t.add(patch, path, "Change a tenant's quotas", tenants::patch);
    t.takes("TenantChange");
    t.add(delete.clone(), path, "Delete a tenant with all it holds", tenants::delete);

    let path = "/stockade/v1/keys";
    t.add(post.clone(), path, "Make an API key", keys::create);
    t.takes("NewKey");
    t.add(get.clone(), path, "The tenant's API keys", keys::list);
    t.add(delete.clone(), "/stockade/v1/keys/{id}", "Delete an API key", keys::delete);
    t.add(post.clone(), "/stockade/v1/keys/{id}/rotate", "Give an API key a new secret", keys::rotate);

    let path = "/stockade/v1/components";
    t.add(get.clone(), path, "The tenant's components", components::list);
    let path = "/stockade/v1/components/{name}";
    t.add(get.clone(), path, "A component's versions", components::get);
    let path = "/stockade/v1/components/{name}/versions/{version}";
    t.add(put.clone(), path, "Upload a version", components::put);
    t.takes("Component");
    t.add(get.clone(), path, "One version", components::get_version);
    t.add(delete.clone(), path, "Delete an unbound version", components::delete_version);
    let path = "/stockade/v1/components/{name}/versions/{version}/invoke";
    t.add(post.clone(), path, "Call an exported function", components::invoke);
    t.takes("Invocation");
    let path = "/stockade/v1/components/{name}/grants";
    t.add(get.clone(), path, "What a component may reach", components::get_grants);
    t.add(put.clone(), path, "Replace a component's grants", components::put_grants);
    t.takes("Grants");

    t.add(get.clone(), "/stockade/v1/bindings", "Bound roles", bindings::list);
    let path = "/stockade/v1/bindings/{*role}";
    t.add(get.clone(), path, "A role's binding", bindings::get);
    t.add(put.clone(), path, "Bind a role", bindings::put);
    t.takes("Binding");
    t.add(delete.clone(), path, "Unbind a role", bindings::delete);
    t.add(post.clone(), path, "With `/rollback` after the role: bring its previous binding back", bindings::rollback);

    let path = "/stockade/v1/assistants";
    t.add(post.clone(), path, "Make an assistant", assistants::create);
    t.takes("NewAssistant");
    t.add(get.clone(), path, "The tenant's assistants", assistants::list);
    let path = "/stockade/v1/assistants/{name}";
    t.add(get.clone(), path, "An assistant's newest version", assistants::get);
    t.add(put.clone(), path, "Add a version of an assistant", assistants::put);
    t.takes("Assistant");
    t.add(delete.clone(), path, "Delete an assistant with its versions", assistants::delete);
    t.add(get.clone(), "/stockade/v1/assistants/{name}/versions", "An assistant's versions", assistants::versions);
    let path = "/stockade/v1/assistants/{name}/versions/{version}";
    t.add(get.clone(), path, "One version of an assistant", assistants::get_version);

    t.add(get.clone(), "/stockade/v1/interruptions", "Turns that wait for an answer", interruptions::list);
    t.add(get.clone(), "/stockade/v1/interruptions/{id}", "One of them", interruptions::get);
    t.add(post.clone(), "/stockade/v1/interruptions/{id}/resume", "Answer it", interruptions::resume);
    t.takes("Answer");

    jobs_and_data(t);

    t.add(get.clone(), "/stockade/v1/traces", "Traces, newest first", traces::list);
    t.add(get.clone(), "/stockade/v1/traces/{id}", "One trace", traces::get);
    t.add(get.clone(), "/stockade/v1/usage", "Tokens by day and model", traces::usage);

    let path = "/stockade/v1/secrets";
    t.add(get.clone(), path, "Names of secrets", secrets::list);
    let path = "/stockade/v1/secrets/{name}";
    t.add(put.clone(), path, "Set a secret", secrets::put);
    t.takes("Secret");
    t.add(delete.clone(), path, "Delete a secret", secrets::delete);

    t.add(get.clone(), "/stockade/v1/state/{bucket}", "A bucket's keys", state::list);
    let path = "/stockade/v1/state/{bucket}/{*key}";
    t.add(get, path, "A value", state::get);
    t.add(put, path, "Put a value", state::put);
    t.takes("Any");
    t.add(delete, path, "Delete a value", state::delete);

    t.add(post, "/stockade/v1/prompts/render", "What a stored prompt or a template becomes", prompts::render);
    t.takes("RenderRequest");
    stored_prompts(t);
}

/// The Llama Stack's prompts.
fn llama_prompts(t: &mut Table) {
    let (get, post) = (Method::GET, Method::POST);
    let path = "/v1/prompts";
    t.add(get.clone(), path, "The default versions of all prompts", llama::list);
    t.add(post.clone(), path, "Make a prompt", llama::create);
    t.takes("NewPrompt");
    let path = "/v1/prompts/{id}";
    t.add(get.clone(), path, "A prompt's default version, or the one of `version`", llama::get);
    t.add(Method::DELETE, path, "Delete a prompt, or one `version` of it", llama::delete);
    t.add(get, "/v1/prompts/{id}/versions", "A prompt's versions", llama::versions);
    // Older clients say POST.
    for method in [Method::PUT, post] {
        t.add(method.clone(), "/v1/prompts/{id}", "Add a version to the latest", llama::update);
        t.takes("PromptUpdate");
        let path = "/v1/prompts/{id}/set-default-version";
        t.add(method, path, "Choose the default version", llama::set_default_version);
        t.takes("PromptDefault");
    }
}

fn stored_prompts(t: &mut Table) {
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    t.add(get.clone(), "/stockade/v1/prompts", "Stored prompts, by `text` and `tag`", prompts::find);
    t.add(post, "/stockade/v1/prompts/import", "Put a file's versions and labels", prompts::import);
    t.takes("PromptFile");
    let path = "/stockade/v1/prompts/{name}";
    t.add(get.clone(), path, "The latest version, or the one of `version` or `label`", prompts::get);
    t.add(put.clone(), path, "Add a version", prompts::put);
    t.takes("PromptVersion");
    t.add(delete.clone(), path, "Delete a prompt, or one `version` of it", prompts::delete);
    t.add(get.clone(), "/stockade/v1/prompts/{name}/versions", "A prompt's versions", prompts::versions);
    t.add(get.clone(), "/stockade/v1/prompts/{name}/moves", "The newest moves of a prompt's labels", prompts::moves);
    let path = "/stockade/v1/prompts/{name}/diff";
    t.add(get.clone(), path, "From version or label `before` to `after`, by `unit` line or word", prompts::diff);
    let path = "/stockade/v1/prompts/{name}/export";
    t.add(get, path, "A prompt as a file, its `form` json-lines or dotprompt", prompts::export);
    let path = "/stockade/v1/prompts/{name}/labels/{label}";
    t.add(put, path, "Point a label at a version, or at several in shares", prompts::put_label);
    t.takes("PromptLabel");
    t.add(delete, path, "Take a label away", prompts::delete_label);
}
