//! The binary `stockade`: reads the command line, builds the parts, hands them to each other.

mod cases;
mod cli;
mod client;
mod commands;
mod credentials;
mod curves;
mod digest;
mod embedded;
mod failure;
mod folders;
mod jobs;
mod lock;
mod manifest;
mod outbound;
mod output;
mod progress;
mod sandbox;
mod serve;
mod settings;
mod vault;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command};
use client::Client;
use commands::{chat, component, data, doctor, job, models, plugin, prompt, tenant, train};
use failure::Failure;
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.global.json;
    match dispatch(cli) {
        Ok(code) => code,
        Err(failure) => {
            if json {
                let document =
                    failure.document.clone().unwrap_or_else(|| serde_json::json!({"error": failure.message}));
                output::print_line(&document.to_string());
            }
            eprintln!("stockade: {failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let output = Output { json: cli.global.json };
    let client = || Client::new(&cli.global.connection);
    match cli.command {
        Command::Serve(options) => serve::run(&options)?,
        Command::Run(options) => chat::run(&options, &client(), output)?,
        Command::Models(command) => models::run(command, output)?,
        Command::Train(options) => return train::run(&options, &client(), output),
        Command::Job(command) => return job::run(command, &client(), output),
        Command::Component(command) => component::run(command, &client(), output)?,
        Command::New(options) => plugin::new(&options, output)?,
        Command::Build(options) => plugin::build(&options, output)?,
        Command::Test(options) => plugin::test(&options, output)?,
        Command::Watch(options) => plugin::watch(&options, &client(), output)?,
        Command::Invoke(invocation) => component::invoke(&invocation, &client(), output)?,
        Command::Prompt(command) => prompt::run(command, &client(), output)?,
        Command::Tenant(command) => tenant::tenant(command, &client(), output)?,
        Command::Key(command) => {
            tenant::key(command, &client(), cli.global.connection.tenant.as_deref(), output)?;
        }
        Command::Grant(command) => tenant::grant(command, &client(), output)?,
        Command::Quota(command) => tenant::quota(command, &client(), output)?,
        Command::Backup { to, data } => data::backup(&to, &data, output)?,
        Command::Restore { from, data } => data::restore(&from, &data, output)?,
        Command::Verify(folder) => data::verify(&folder, output)?,
        Command::Compact(folder) => data::compact(&folder, output)?,
        Command::Doctor => doctor::run(&client(), output)?,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "stockade", &mut std::io::stdout());
        }
        Command::CompileComponent { args } => return Ok(stockade_runtime::compile::child_main(args)),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
