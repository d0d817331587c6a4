//! The gateway over scripted models and components.

mod agents;
mod assistants;
mod blocked_spans;
mod chain;
mod chat;
mod completions;
mod connections;
mod conversations;
mod embeddings;
mod fakes;
mod host_routes;
mod interruptions;
mod jobs;
mod lean;
mod responses;
mod surface;
mod tools;
