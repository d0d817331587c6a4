//! The one error of the gateway and its two shapes outside: OpenAI's on `/v1`, RFC 9457 problems elsewhere.
//!
//! A handler answers with an [`ApiError`]; the outermost layer writes it in the shape of its route, with the request
//! id. Texts here are for the caller: causes inside the host go to the log alone.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::error::Error;
use std::sync::Arc;
use stockade_core::error::Fault;
use stockade_core::infer::InferError;
use stockade_core::jobs::JobsError;
use stockade_core::plugin::{AdmitError, CallError};
use stockade_core::registry::RegistryError;
use stockade_core::store::StoreError;
use stockade_core::train::TrainError;

/// Longest name that a message repeats, in bytes.
const MAX_SHOWN_BYTES: usize = 128;

/// Stable codes; see the interface's table of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Unauthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    VersionExists,
    InUse,
    Conflict,
    RevisionMismatch,
    TooLarge,
    InvalidRequest,
    InvalidComponent,
    QuotaExceeded,
    RateLimited,
    ComponentFailed,
    Overloaded,
    /// State cannot be read or written now.
    Storage,
    /// No space is left for state.
    StorageFull,
    Internal,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::VersionExists => "version_exists",
            Self::InUse => "in_use",
            Self::Conflict => "conflict",
            Self::RevisionMismatch => "revision_mismatch",
            Self::TooLarge => "too_large",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidComponent => "invalid_component",
            Self::QuotaExceeded => "quota_exceeded",
            Self::RateLimited => "rate_limited",
            Self::ComponentFailed => "component_failed",
            Self::Overloaded => "overloaded",
            Self::Storage | Self::StorageFull => "storage",
            Self::Internal => "internal",
        }
    }

    pub fn status(self) -> StatusCode {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::VersionExists | Self::InUse | Self::Conflict => StatusCode::CONFLICT,
            Self::RevisionMismatch => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::InvalidComponent => StatusCode::UNPROCESSABLE_ENTITY,
            Self::QuotaExceeded | Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::ComponentFailed | Self::Overloaded | Self::Storage => StatusCode::SERVICE_UNAVAILABLE,
            Self::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn openai_type(self) -> &'static str {
        match self {
            Self::Unauthenticated => "authentication_error",
            Self::Forbidden => "permission_error",
            Self::QuotaExceeded | Self::RateLimited => "rate_limit_error",
            _ if self.status().is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    pub code: Code,
    pub detail: String,
    /// The request's field at fault, where one is.
    pub param: Option<String>,
    /// Fields of the case, such as `component` and `limit`.
    pub fields: Vec<(&'static str, Value)>,
    /// Seconds after which the same request may succeed.
    pub retry_after: Option<u64>,
}

impl ApiError {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            param: None,
            fields: Vec::new(),
            retry_after: match code {
                Code::Overloaded | Code::RateLimited | Code::QuotaExceeded => Some(1),
                _ => None,
            },
        }
    }

    /// A field of the request is wrong.
    pub fn invalid(param: impl Into<String>, reason: impl AsRef<str>) -> Self {
        let param = param.into();
        Self { param: Some(param.clone()), ..Self::new(Code::InvalidRequest, format!("{param}: {}", reason.as_ref())) }
    }

    /// `name` is the client's; a long one is cut.
    pub fn not_found(what: &str, name: &str) -> Self {
        let shown = &name[..name.floor_char_boundary(MAX_SHOWN_BYTES)];
        Self::new(Code::NotFound, format!("no {what} `{shown}`"))
    }

    pub fn internal() -> Self {
        Self::new(Code::Internal, "the host failed")
    }

    /// Sets a field of the case.
    pub fn with(mut self, field: &'static str, value: impl Into<Value>) -> Self {
        self.fields.retain(|(name, _)| *name != field);
        self.fields.push((field, value.into()));
        self
    }

    pub fn field(&self, field: &str) -> Option<&Value> {
        let mut fields = self.fields.iter();
        fields.find(|(name, _)| *name == field).map(|(_, v)| v)
    }

    fn add_fields(&self, body: &mut Value) {
        for (name, value) in &self.fields {
            body[*name] = value.clone();
        }
    }

    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds.max(1));
        self
    }

    /// The body of OpenAI's dialect.
    pub fn openai(&self, request: &str) -> Value {
        let mut error = json!({
            "message": self.detail,
            "type": self.code.openai_type(),
            "param": self.param,
            "code": self.code.as_str(),
            "request_id": request,
        });
        self.add_fields(&mut error);
        json!({ "error": error })
    }

    /// The body of an RFC 9457 problem.
    pub fn problem(&self, request: &str) -> Value {
        let status = self.code.status();
        let mut problem = json!({
            "type": format!("urn:stockade:error:{}", self.code.as_str()),
            "title": status.canonical_reason().unwrap_or("error"),
            "status": status.as_u16(),
            "detail": self.detail,
            "code": self.code.as_str(),
            "request_id": request,
        });
        if let Some(param) = &self.param {
            problem["param"] = param.as_str().into();
        }
        self.add_fields(&mut problem);
        problem
    }

    /// The error as a reply in the shape that `path` speaks.
    pub fn reply(&self, path: &str, request: &str) -> Response {
        let (body, media_type) = if speaks_openai(path) {
            (self.openai(request), "application/json")
        } else {
            (self.problem(request), "application/problem+json")
        };
        let mut reply = (self.code.status(), body.to_string()).into_response();
        let headers = reply.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        reply
    }
}

/// Whether errors of this path have OpenAI's shape.
fn speaks_openai(path: &str) -> bool {
    let dialects = ["/v1/", "/v1alpha/", "/v1beta/"];
    dialects.iter().any(|d| path.starts_with(d))
        || path == "/v1"
        || ["/tokenize", "/detokenize", "/tokenizer_info"].contains(&path)
}

/// Marks a reply whose body the outermost layer writes.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut reply = self.code.status().into_response();
        reply.extensions_mut().insert(Arc::new(self));
        reply
    }
}

/// Logs a failure inside the host with its causes and tells the caller nothing of them.
fn host_failure(stage: &str, source: &(dyn Error + 'static)) -> ApiError {
    let mut causes = source.to_string();
    let mut next = source.source();
    while let Some(cause) = next {
        causes.push_str(": ");
        causes.push_str(&cause.to_string());
        next = cause.source();
    }
    tracing::error!(stage, causes, "the host failed");
    ApiError::internal()
}

impl From<InferError> for ApiError {
    fn from(e: InferError) -> Self {
        let detail = e.to_string();
        match e {
            InferError::UnknownModel(_) => Self { param: Some("model".into()), ..Self::new(Code::NotFound, detail) },
            InferError::WrongKind { .. } => Self::invalid("model", detail),
            InferError::ContextOverflow { prompt, requested, limit } => Self::new(Code::InvalidRequest, detail)
                .with("prompt_tokens", prompt)
                .with("requested_tokens", requested)
                .with("limit", limit),
            InferError::Invalid { field, reason } => Self::invalid(field, reason),
            InferError::Template(_) => Self::invalid("messages", detail),
            InferError::Constraint(_) => Self::invalid("response_format", detail),
            InferError::Overloaded { .. } => Self::new(Code::Overloaded, detail),
            InferError::Cancelled => Self::new(Code::Overloaded, "the host ended the request; it may be sent again"),
            InferError::Backend { stage, source } => host_failure(stage, &*source),
            other => host_failure("inference", &other),
        }
    }
}

impl From<CallError> for ApiError {
    fn from(e: CallError) -> Self {
        let detail = e.to_string();
        match e {
            CallError::Component { component, code, .. } => {
                Self::new(Code::ComponentFailed, detail).with("component", component).with("component_code", code)
            }
            CallError::Failed { component, limit, .. } => {
                Self::new(Code::ComponentFailed, detail).with("component", component).with("limit", limit.as_str())
            }
            CallError::Denied { component, what } => {
                Self::new(Code::ComponentFailed, detail).with("component", component).with("denied", what)
            }
            CallError::NoFunction { .. } => Self::new(Code::NotFound, detail),
            CallError::Arguments(reason) => Self::invalid("args", reason),
            CallError::Infer(e) => e.into(),
            CallError::Overloaded => Self::new(Code::Overloaded, detail),
            CallError::Host { stage, source } => host_failure(stage, &*source),
            other => host_failure("a component call", &other),
        }
    }
}

impl From<AdmitError> for ApiError {
    fn from(e: AdmitError) -> Self {
        let detail = e.to_string();
        match e {
            AdmitError::Invalid { reasons } => {
                let first =
                    reasons.first().map(|r| format!(": at {}, found {}, expected {}", r.at, r.found, r.expected));
                let detail = detail + &first.unwrap_or_default();
                Self::new(Code::InvalidComponent, detail).with("reasons", json!(reasons))
            }
            AdmitError::TooLarge { size, limit } => {
                Self::new(Code::TooLarge, detail).with("size", size).with("limit", limit)
            }
            AdmitError::Overloaded => Self::new(Code::Overloaded, detail).retry_after(5),
            AdmitError::Host { stage, source } => host_failure(stage, &*source),
            other => host_failure("admission", &other),
        }
    }
}

impl From<RegistryError> for ApiError {
    fn from(e: RegistryError) -> Self {
        let detail = e.to_string();
        match e {
            RegistryError::NotFound { .. } => Self::new(Code::NotFound, detail),
            RegistryError::Exists { .. } | RegistryError::Conflict(_) => Self::new(Code::Conflict, detail),
            RegistryError::VersionExists { component, version } => {
                Self::new(Code::VersionExists, detail).with("component", component).with("version", version)
            }
            RegistryError::InUse { component, version, role } => {
                Self::new(Code::InUse, detail).with("component", component).with("version", version).with("role", role)
            }
            RegistryError::RevisionMismatch { found } => {
                Self::new(Code::RevisionMismatch, detail).with("revision", found)
            }
            RegistryError::Invalid { field, reason } => Self::invalid(field, reason),
            RegistryError::LeaseLost { .. } => Self::new(Code::Conflict, detail),
            RegistryError::NotServed(_) => Self::new(Code::InvalidRequest, detail),
            RegistryError::TooLarge { size, limit, .. } => {
                Self::new(Code::TooLarge, detail).with("size", size).with("limit", limit)
            }
            RegistryError::Store(e) => e.into(),
            other => host_failure("the registry", &other),
        }
    }
}

impl From<JobsError> for ApiError {
    fn from(e: JobsError) -> Self {
        let detail = e.to_string();
        match e {
            JobsError::Invalid { field, reason } => Self::invalid(field, reason),
            JobsError::Denied { .. } => Self::new(Code::Forbidden, detail),
            JobsError::TooMany { limit } => {
                Self::new(Code::QuotaExceeded, detail).with("quota", "jobs").with("limit", limit)
            }
            JobsError::Spent { quota, limit } => {
                Self::new(Code::QuotaExceeded, detail).with("quota", quota).with("limit", limit).retry_after(3600)
            }
            JobsError::NameTaken { .. } => Self::new(Code::Conflict, detail).with("param", "spec.output.name"),
            JobsError::Train(e) => e.into(),
            JobsError::Registry(e) => e.into(),
            other => host_failure("making a job", &other),
        }
    }
}

impl From<TrainError> for ApiError {
    fn from(e: TrainError) -> Self {
        let detail = e.to_string();
        match e {
            TrainError::Spec { field, reason } => Self::invalid(format!("spec.{field}"), reason),
            TrainError::Row { .. } | TrainError::Data { .. } => {
                Self { param: Some("spec.data".into()), ..Self::new(Code::InvalidRequest, detail) }
            }
            TrainError::Model { .. } => {
                Self { param: Some("spec.model".into()), ..Self::new(Code::InvalidRequest, detail) }
            }
            TrainError::NotFound { .. } => Self::new(Code::NotFound, detail),
            TrainError::Memory { needed, limit } => {
                Self::new(Code::TooLarge, detail).with("size", needed).with("limit", limit)
            }
            TrainError::Changed { .. } | TrainError::Diverged { .. } => Self::new(Code::Conflict, detail),
            TrainError::Reward { component, .. } => {
                Self::new(Code::ComponentFailed, detail).with("component", component)
            }
            TrainError::Io { stage, source } => host_failure(stage, &*source),
            other => host_failure("training", &other),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::Conflict { .. } => Self::new(Code::Conflict, e.to_string()),
            StoreError::TooLarge { size, limit, .. } => {
                Self::new(Code::TooLarge, e.to_string()).with("size", size).with("limit", limit)
            }
            StoreError::Full => Self::new(Code::StorageFull, e.to_string()),
            e => {
                let host = e.fault() == Fault::Host;
                let error = host_failure("state", &e);
                if host {
                    Self::new(Code::Storage, "state cannot be read or written now").retry_after(5)
                } else {
                    error
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stockade_core::limits::LimitKind;

    #[test]
    fn a_failing_component_is_named_with_its_limit_in_both_shapes() {
        let e = ApiError::from(CallError::Failed {
            component: "s@1".into(),
            limit: LimitKind::HostCalls,
            detail: "too many".into(),
        });
        assert_eq!(e.code.status(), 503);
        let openai = e.openai("req_1");
        assert_eq!(openai["error"]["code"], "component_failed");
        assert_eq!(openai["error"]["limit"], "host_calls");
        let problem = e.problem("req_1");
        assert_eq!(problem["component"], "s@1");
        assert_eq!(problem["request_id"], "req_1");
    }

    #[test]
    fn causes_inside_the_host_are_not_told() {
        let e = ApiError::from(InferError::Backend { stage: "decode", source: "/secret/path".into() });
        assert!(!e.openai("r").to_string().contains("secret"));
        assert_eq!(e.code, Code::Internal);
    }
}
