//! Byte-level BPE tokenizers trained from text, with Llama 3's split pattern and the names of its control tokens.
//!
//! The result is a folder that `transformers` and this host load: `tokenizer.json` and `tokenizer_config.json`, with a
//! chat template. Control tokens have the last ids. Where digits are single no token holds two of them, so that Llama
//! 3's own pattern, which the file names, gives the same ids as the one it was trained with; GGUF can then say
//! `llama-bpe`.
//!
//! Invariant: text and settings alone decide the tokenizer.

use crate::data;
use crate::job::{Job, NewTokenizer};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use stockade_core::train::{Resolver, TrainError};
use stockade_model::tokenizer::{LLAMA3_SPLIT, SINGLE_DIGIT_SPLIT};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, Tokenizer};

/// In the order of their ids.
pub const CONTROL_TOKENS: [&str; 8] = [
    BEGIN,
    "<|end_of_text|>",
    PAD,
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    END_OF_TURN,
    "<|python_tag|>",
];
const BEGIN: &str = "<|begin_of_text|>";
const PAD: &str = "<|finetune_right_pad_id|>";
const END_OF_TURN: &str = "<|eot_id|>";

/// Least vocabulary: every byte, and the control tokens.
pub const MIN_VOCABULARY: u64 = 256 + CONTROL_TOKENS.len() as u64;
/// Longest token in characters.
const MAX_TOKEN_CHARS: usize = 32;

/// Llama 3's turns; tools are spelled out by whoever renders.
const TEMPLATE: &str = "{{- bos_token }}\
    {%- for message in messages %}\
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}\
    {{- (message['content'] or '') | trim + '<|eot_id|>' }}\
    {%- endfor %}\
    {%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}";

/// File that says what a tokenizer was made from, written last.
const SOURCE: &str = "made-from";

/// The folder of the tokenizer that the job wants made from its training data, made in `folder` unless
/// it is there, from the same data.
pub fn of_job(job: &Job, resolver: &dyn Resolver, folder: &Path) -> Result<Option<PathBuf>, TrainError> {
    let Some(settings) = &job.model.new_tokenizer else {
        return Ok(None);
    };
    let home = folder.join("tokenizer");
    let source = format!("{settings:?} {} {:?} {}", job.seed, job.data, data::digest(&job.data.train, resolver)?);
    let source = format!("{:x}", Sha256::digest(source));
    if std::fs::read_to_string(home.join(SOURCE)).ok().as_deref() != Some(&source) {
        train(settings, &home, |take| data::each_text(job, resolver, take))?;
        std::fs::write(home.join(SOURCE), source).map_err(failed)?;
    }
    Ok(Some(home))
}

/// Trains on the texts that `texts` hands to what it is given, until that says that it has enough.
///
/// # Errors
/// Those of `texts`; [`TrainError::Io`] for a folder that cannot be written.
pub fn train(
    settings: &NewTokenizer,
    folder: &Path,
    texts: impl FnOnce(&mut dyn FnMut(String) -> bool) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let vocabulary = settings.vocabulary - CONTROL_TOKENS.len();
    let trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocabulary)
        .min_frequency(settings.min_frequency)
        .max_token_length(Some(MAX_TOKEN_CHARS))
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut trainer = TrainerWrapper::from(trainer);
    let mut tokenizer = Tokenizer::new(BPE::default());
    let pattern = if settings.single_digits { SINGLE_DIGIT_SPLIT } else { LLAMA3_SPLIT };
    tokenizer.with_pre_tokenizer(Some(split(pattern)?));
    // The trainer takes texts from an iterator that may move between threads; files are read on this one.
    let (sender, receiver) = sync_channel::<String>(64);
    std::thread::scope(|scope| {
        let training = scope.spawn(|| tokenizer.train(&mut trainer, receiver.into_iter()).map(drop));
        let mut left = settings.max_bytes;
        let read = texts(&mut |text| {
            left = left.saturating_sub(text.len() as u64);
            sender.send(text).is_ok() && left > 0
        });
        drop(sender);
        let trained = training.join().map_err(|_| failed("the tokenizer's trainer panicked"))?;
        read.and(trained.map_err(failed))
    })?;
    finish(tokenizer, folder)
}

/// Rebuilds it as it is used: whole words of the vocabulary skip the merges, as Llama 3's do.
fn finish(mut tokenizer: Tokenizer, folder: &Path) -> Result<(), TrainError> {
    let mut file = serde_json::to_value(&tokenizer).map_err(failed)?;
    file["model"]["ignore_merges"] = true.into();
    tokenizer = Tokenizer::from_bytes(file.to_string()).map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(split(LLAMA3_SPLIT)?));
    tokenizer.with_decoder(Some(tokenizers::decoders::byte_level::ByteLevel::default()));
    let control: Vec<AddedToken> =
        CONTROL_TOKENS.iter().map(|text| AddedToken::from(*text, true).normalized(false)).collect();
    tokenizer.add_special_tokens(control).map_err(failed)?;
    let begin = tokenizer.token_to_id(BEGIN).ok_or_else(|| failed("a control token has no id"))?;
    let frame = TemplateProcessing::builder()
        .try_single(format!("{BEGIN} $A"))
        .and_then(|builder| builder.try_pair(format!("{BEGIN} $A {BEGIN} $B")))
        .map_err(failed)?
        .special_tokens(vec![(BEGIN, begin)])
        .build()
        .map_err(failed)?;
    tokenizer.with_post_processor(Some(frame));
    let settings = json!({
        "bos_token": BEGIN,
        "eos_token": END_OF_TURN,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
        "chat_template": TEMPLATE,
    });
    std::fs::create_dir_all(folder).map_err(failed)?;
    let text = tokenizer.to_string(true).map_err(failed)?;
    std::fs::write(folder.join("tokenizer.json"), text).map_err(failed)?;
    // Whoever generates must know where to stop; a configuration from scratch may not say it.
    let id = |name: &str| tokenizer.token_to_id(name);
    let ends = ["<|end_of_text|>", "<|eom_id|>", END_OF_TURN].map(id);
    let generation = json!({"bos_token_id": begin, "eos_token_id": ends, "pad_token_id": id(PAD)});
    let generation = serde_json::to_vec_pretty(&generation).map_err(failed)?;
    std::fs::write(folder.join("generation_config.json"), generation).map_err(failed)?;
    let settings = serde_json::to_vec_pretty(&settings).map_err(failed)?;
    // Written last: a folder that has it is whole.
    std::fs::write(folder.join("tokenizer_config.json"), settings).map_err(failed)
}

fn split(pattern: &str) -> Result<Sequence, TrainError> {
    let split = Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false);
    Ok(Sequence::new(vec![split.map_err(failed)?.into(), ByteLevel::new(false, true, false).into()]))
}

fn failed(error: impl Into<stockade_core::BoxError>) -> TrainError {
    TrainError::Io { stage: "training the tokenizer", source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use stockade_model::template::ChatTemplate;
    use stockade_model::tokenizer::EncodeOptions;

    const TEXT: &str = "The king's men came in 1234. The king's men left in 1299!\n\n  Then the kings of the north, \
        the kings of the south and the kings of nowhere met in 12, 123 and 1234 places.\r\nCaf\u{e9}s, \u{65e5}\u{672c}.";

    fn trained(settings: &NewTokenizer) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        train(settings, folder.path(), |take| {
            (0..20).for_each(|_| {
                take(TEXT.to_owned());
            });
            Ok(())
        })
        .unwrap();
        folder
    }

    fn settings(vocabulary: usize, single_digits: bool) -> NewTokenizer {
        NewTokenizer { vocabulary, single_digits, min_frequency: 2, max_bytes: 1 << 20 }
    }

    fn ids(tokenizer: &stockade_model::Tokenizer, text: &str) -> Vec<u32> {
        tokenizer.encode(text, EncodeOptions::default()).unwrap()
    }

    #[test]
    fn a_trained_tokenizer_loads_with_its_control_tokens_last_and_its_template() {
        let folder = trained(&settings(320, true));
        let tokenizer = stockade_model::Tokenizer::from_folder(folder.path()).unwrap();
        assert_eq!(tokenizer.vocab_size(), 320);
        let first = 320 - CONTROL_TOKENS.len() as u32;
        for (id, name) in (first..).zip(CONTROL_TOKENS) {
            assert_eq!(tokenizer.added_id(name), Some(id), "{name}");
            assert!(tokenizer.is_control(id));
        }
        assert_eq!(tokenizer.special().bos, Some(first));
        assert_eq!(tokenizer.special().eos, tokenizer.added_id(END_OF_TURN));
        let framed = tokenizer.encode("a", EncodeOptions { add_special: true, parse_special: false }).unwrap();
        assert_eq!(framed[0], first);
        assert!(ids(&tokenizer, TEXT).len() * 2 < TEXT.len(), "words are not merged");
        let template = ChatTemplate::from_folder(folder.path(), &tokenizer).unwrap();
        assert!(template.unwrap().default_source().contains("<|start_header_id|>"));
    }

    #[test]
    fn the_same_text_gives_the_same_file() {
        let read = || std::fs::read(trained(&settings(320, true)).path().join("tokenizer.json")).unwrap();
        let first = read();
        (0..3).for_each(|_| assert!(first == read()));
    }

    #[test]
    fn no_token_holds_two_digits_unless_they_may() {
        for (single, longest) in [(true, 1), (false, 3)] {
            let folder = trained(&settings(400, single));
            let tokenizer = stockade_model::Tokenizer::from_folder(folder.path()).unwrap();
            let digits = |id: u32| tokenizer.token_bytes(id).iter().filter(|b| b.is_ascii_digit()).count();
            let found = (0..tokenizer.vocab_size() as u32).map(digits).max();
            assert_eq!(found, Some(longest), "single digits: {single}");
        }
    }

    #[test]
    fn no_text_leaves_the_bytes() {
        let folder = tempfile::tempdir().unwrap();
        train(&settings(300, true), folder.path(), |_| Ok(())).unwrap();
        let tokenizer = stockade_model::Tokenizer::from_folder(folder.path()).unwrap();
        assert_eq!(ids(&tokenizer, "ab").len(), 2);
        let refused = train(&settings(300, true), folder.path(), |_| Err(TrainError::spec("data", "no")));
        assert!(matches!(refused, Err(TrainError::Spec { .. })));
    }

    proptest! {
        #[test]
        fn every_text_reads_back(text in ".{0,80}") {
            use std::sync::LazyLock;
            static TOKENIZER: LazyLock<stockade_model::Tokenizer> = LazyLock::new(|| {
                stockade_model::Tokenizer::from_folder(trained(&settings(340, true)).path()).unwrap()
            });
            prop_assert_eq!(TOKENIZER.decode(&ids(&TOKENIZER, &text), false), text);
        }
    }
}
