//! Bounds of the gateway. Read once by the binary; nothing below it reads files or the environment.

use std::time::Duration;

/// Each bound protects the memory or the threads of the host from what clients send or fail to take.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Largest JSON body in bytes; holds pictures as data URLs.
    pub max_body_bytes: usize,
    /// Largest component upload in bytes.
    pub max_component_bytes: usize,
    /// Largest uploaded file in bytes.
    pub max_file_bytes: usize,
    /// Most JSON values in a body: bounds the memory of a parsed one.
    pub max_json_values: usize,
    /// Deepest nesting of a JSON body; at most 120, which the parser's own stack allows.
    pub max_json_depth: usize,
    /// Open connections.
    pub max_connections: usize,
    /// Inference requests at once, all tenants together.
    pub max_requests: usize,
    /// Inference requests at once of a tenant whose quotas say nothing.
    pub max_requests_per_tenant: u32,
    /// From a connection's first byte to the end of its request's head.
    pub header_timeout: Duration,
    /// From the head to the end of the body.
    pub body_timeout: Duration,
    /// A whole inference request, its stream included.
    pub request_timeout: Duration,
    /// How long a client may refuse to take the next bytes of its reply.
    pub write_timeout: Duration,
    /// Silence in an event stream after which a comment is sent, so that proxies keep it open.
    pub keep_alive: Duration,
    /// How long running requests may take to end after the shutdown began.
    pub drain: Duration,
    /// How long an interrupted turn waits for its answer.
    pub interruption: Duration,
    /// Traces kept of each tenant.
    pub keep_traces: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_body_bytes: 16 << 20,
            max_component_bytes: 64 << 20,
            max_file_bytes: 32 << 20,
            max_json_values: 1 << 20,
            max_json_depth: 96,
            max_connections: 4096,
            max_requests: 1024,
            max_requests_per_tenant: 256,
            header_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(900),
            write_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
            drain: Duration::from_secs(30),
            interruption: Duration::from_secs(24 * 3600),
            keep_traces: 10_000,
        }
    }
}
