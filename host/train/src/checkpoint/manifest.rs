//! The list of a checkpoint's files with sizes and digests: what tells a whole checkpoint from debris.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

const NAME: &str = "manifest.json";
/// Files of a checkpoint: a few, and the shards of a model.
const MAX_FILES: usize = 10_000;
const MAX_BYTES: u64 = 4 << 20;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// By path below the checkpoint's folder.
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    sha256: String,
}

impl Manifest {
    /// Makes everything in `folder` durable and writes the manifest, last.
    pub fn seal(folder: &Path) -> io::Result<()> {
        let mut files = BTreeMap::new();
        describe(folder, "", &mut files)?;
        let mut file = File::create(folder.join(NAME))?;
        file.write_all(&serde_json::to_vec_pretty(&Self { files })?)?;
        file.sync_all()?;
        File::open(folder)?.sync_all()
    }

    pub fn read(folder: &Path) -> io::Result<Self> {
        let file = File::open(folder.join(NAME))?;
        if file.metadata()?.len() > MAX_BYTES {
            return Err(io::Error::other(format!("its manifest is longer than {MAX_BYTES} bytes")));
        }
        Ok(serde_json::from_reader(io::BufReader::new(file))?)
    }

    /// Whether every file is there as it was written. Sizes first, since those are cheap.
    pub fn verify(&self, folder: &Path) -> io::Result<()> {
        let inside =
            |name: &str| Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        for (name, entry) in &self.files {
            if !inside(name) || fs::metadata(folder.join(name))?.len() != entry.bytes {
                return Err(io::Error::other(format!("{name} has not the size that it was written with")));
            }
        }
        for (name, entry) in &self.files {
            if digest(&mut File::open(folder.join(name))?)? != entry.sha256 {
                return Err(io::Error::other(format!("{name} has not the digest that it was written with")));
            }
        }
        Ok(())
    }
}

/// Adds the files of a folder, at `prefix` below the checkpoint's, and makes them durable.
fn describe(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Entry>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| io::Error::other("a file's name is not UTF-8"))?;
        let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        if entry.file_type()?.is_dir() {
            describe(&entry.path(), &name, files)?;
            continue;
        }
        if files.len() >= MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} files")));
        }
        let mut file = File::open(entry.path())?;
        let sha256 = digest(&mut file)?;
        file.sync_all()?;
        files.insert(name, Entry { bytes: file.metadata()?.len(), sha256 });
    }
    File::open(folder)?.sync_all()
}

fn digest(file: &mut File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{:x}", hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}
