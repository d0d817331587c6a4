//! Jobs of a server: listed, followed, steered, drawn.

use crate::cli::{Job, PictureForm};
use crate::client::{Body, Client, segment};
use crate::commands::train::Screen;
use crate::curves::{Curves, png, svg};
use crate::failure::{Exit, Failure};
use crate::output::{Output, fields, listing};
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

const JOBS: &str = "/stockade/v1/jobs";

pub fn run(command: Job, client: &Client, output: Output) -> Result<ExitCode, Failure> {
    match command {
        Job::List => {
            let list = client.get(&format!("{JOBS}?limit=1000"))?;
            let columns = ["id", "status", "method", "base", "step", "steps", "loss", "model"];
            output.document(&list, |v| listing(&flat(v), &columns));
        }
        Job::Show { id } => output.document(&client.get(&path(&id))?, fields),
        Job::Watch { id } => return watch(&id, client, output),
        Job::Pause { id } => steer(&id, "pause", client, output)?,
        Job::Resume { id } => steer(&id, "resume", client, output)?,
        Job::Cancel { id } => steer(&id, "cancel", client, output)?,
        Job::Checkpoints { id } => {
            let list = client.get(&format!("{}/checkpoints", path(&id)))?;
            output.document(&list, |v| listing(v, &["step", "loss", "eval_loss", "name"]));
        }
        Job::Serve { id, step, name } => {
            let at = format!("{}/checkpoints/{step}/serve", path(&id));
            output.document(&client.call("POST", &at, Body::Json(&json!({"name": name})))?, fields);
        }
        Job::Rm { id } => {
            client.call("DELETE", &path(&id), Body::None)?;
            output.document(&json!({"id": id, "removed": true}), fields);
        }
        Job::Plot { run, out, form } => {
            let out = out
                .unwrap_or_else(|| format!("{}.{}", stem(&run), form.unwrap_or(PictureForm::Svg).extension()).into());
            let form = form.unwrap_or_else(|| PictureForm::of(&out));
            let curves = curves(&run, client)?;
            let picture = match form {
                PictureForm::Svg => svg::draw(&run, &curves.panels()).into_bytes(),
                PictureForm::Png => png::draw(&run, &curves.panels()),
            };
            std::fs::write(&out, picture)?;
            output.document(&json!({"path": out}), fields);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path(id: &str) -> String {
    format!("{JOBS}/{}", segment(id))
}

fn steer(id: &str, verb: &str, client: &Client, output: Output) -> Result<(), Failure> {
    let job = client.call("POST", &format!("{}/{verb}", path(id)), Body::None)?;
    output.document(&json!({"id": id, "status": job["status"], "asked": job["asked"]}), fields);
    Ok(())
}

/// Progress in a list's own columns.
fn flat(list: &Value) -> Value {
    let rows = list["data"].as_array().into_iter().flatten().map(|job| {
        let mut row = job.clone();
        for field in ["step", "steps", "loss"] {
            row[field] = job["progress"][field].clone();
        }
        row
    });
    json!({"data": rows.collect::<Vec<_>>()})
}

/// Follows a job to its end; a stream that breaks off is taken up where it was.
pub fn watch(id: &str, client: &Client, output: Output) -> Result<ExitCode, Failure> {
    const TRIES: usize = 5;
    let screen = Screen::new(true, output);
    let (mut after, mut failures) = (0u64, 0);
    loop {
        let mut over = false;
        let heard = client.follow(&format!("{}/events", path(id)), after, |name, data| {
            failures = 0;
            let event: Value = serde_json::from_str(data).unwrap_or_default();
            after = event["id"].as_u64().unwrap_or(after);
            match name {
                "end" => over = true,
                "metrics" => screen.step(&event["data"]),
                "samples" if !output.json => screen.samples(&event["data"]["samples"]),
                _ if output.json => crate::output::print_line(&event.to_string()),
                _ => screen.note(event["message"].as_str().unwrap_or_default()),
            }
            Ok(())
        });
        match heard {
            Ok(()) if over => break,
            Err(e) if e.exit != Exit::NoServer && e.exit != Exit::Failed => return Err(e),
            Err(e) if failures >= TRIES => return Err(e),
            _ => {
                failures += 1;
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        }
    }
    screen.finish();
    let job = client.get(&path(id))?;
    output.line(&json!({"id": id, "status": job["status"], "model": job["model"], "error": job["error"]}), fields);
    match job["status"].as_str() {
        Some("succeeded") => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::from(Exit::Failed as u8)),
    }
}

/// The curves of a run: a folder or a `metrics.jsonl` here, else a job of the server.
fn curves(run: &str, client: &Client) -> Result<Curves, Failure> {
    let mut curves = Curves::default();
    let here = Path::new(run);
    if here.exists() {
        let file = if here.is_dir() { here.join("metrics.jsonl") } else { here.to_path_buf() };
        let text =
            std::fs::read_to_string(&file).map_err(|e| Failure::not_found(format!("{}: {e}", file.display())))?;
        for line in text.lines() {
            // The last line of a run that goes on may be half written.
            if let Ok(line) = serde_json::from_str(line) {
                curves.add(&line);
            }
        }
    } else {
        let events = client.get(&format!("{}/events?stream=false", path(run)))?;
        let metrics = events["data"].as_array().into_iter().flatten().filter(|e| e["kind"] == "metrics");
        metrics.for_each(|e| curves.add(&e["data"]));
    }
    if curves.is_empty() {
        return Err(Failure::new(Exit::Failed, format!("{run} has no steps yet")));
    }
    Ok(curves)
}

fn stem(run: &str) -> String {
    let name = Path::new(run).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if name.is_empty() { "run".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_on_disk_is_drawn_in_both_forms() {
        let folder = tempfile::tempdir().unwrap();
        let lines: String = (1..=20).map(|n| format!("{{\"step\":{n},\"steps\":20,\"loss\":{}}}\n", 20 - n)).collect();
        std::fs::write(folder.path().join("metrics.jsonl"), lines + "{\"step\":21,\"lo").unwrap();
        let connection = crate::cli::Connection { url: None, key: None, tenant: None };
        let client = Client::new(&connection);
        let drawn = curves(folder.path().to_str().unwrap(), &client).unwrap();
        assert_eq!(drawn.get("loss").unwrap().points.len(), 20);
        for name in ["a.svg", "a.png"] {
            let out = folder.path().join(name);
            let plot = Job::Plot { run: folder.path().display().to_string(), out: Some(out.clone()), form: None };
            run(plot, &client, Output { json: true }).unwrap();
            let bytes = std::fs::read(out).unwrap();
            assert!(bytes.starts_with(if name.ends_with("svg") { b"<svg" } else { b"\x89PNG" }), "{name}");
        }
    }
}
