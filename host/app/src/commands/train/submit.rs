//! `stockade train --submit`: data goes up as files, the job runs on the server.

use super::local::find;
use crate::cli::Train;
use crate::client::{Body, Client};
use crate::commands::job;
use crate::failure::Failure;
use crate::output::{Output, fields};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

pub fn run(options: &Train, mut spec: Value, client: &Client, output: Output) -> Result<ExitCode, Failure> {
    let beside = options.job.parent().unwrap_or(Path::new("."));
    for field in ["train", "eval"] {
        let Some(name) = spec["data"][field].as_str() else { continue };
        // A name that is no path here is one of the server's.
        if let Some(path) = find(beside, name) {
            let file = client.upload(&path, "fine-tune")?;
            eprintln!("{} is file {}", path.display(), file["id"].as_str().unwrap_or_default());
            spec["data"][field] = file["id"].clone();
        }
    }
    let body = json!({"kind": "train", "spec": spec});
    let job = client.call("POST", "/stockade/v1/jobs", Body::Json(&body))?;
    let id = job["id"].as_str().unwrap_or_default();
    if options.watch {
        return job::watch(id, client, output);
    }
    output.document(&json!({"id": id, "status": job["status"]}), fields);
    Ok(ExitCode::SUCCESS)
}
