mod conformance;
mod debug;
