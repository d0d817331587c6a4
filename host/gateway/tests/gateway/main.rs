//! The gateway over scripted models and components.

mod chain;
mod chat;
mod completions;
mod connections;
mod embeddings;
mod fakes;
mod host_routes;
mod lean;
mod surface;
mod tools;
