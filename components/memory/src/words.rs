//! Words of a text as the index has them: lower case, without stop words, stemmed.

use snowball_stemmers_rs::{Algorithm, Stemmer};
use stockade_guest::{Error, Result};

/// Longer words are cut: nobody looks for the rest.
const MAX_WORD_CHARS: usize = 40;

/// How words of a language are stemmed, and which are too common to be looked for.
pub struct Language {
    stemmer: Option<Stemmer>,
    stop: &'static [&'static str],
}

impl Language {
    /// `none` neither stems nor stops.
    pub fn named(name: &str) -> Result<Self> {
        if name == "none" {
            return Ok(Self { stemmer: None, stop: &[] });
        }
        let known = LANGUAGES.iter().find(|(known, ..)| *known == name);
        let Some((_, algorithm, stop)) = known else {
            let names: Vec<_> = LANGUAGES.iter().map(|(name, ..)| *name).collect();
            return Err(Error::Invalid(format!("config.language: none, {}", names.join(", "))));
        };
        Ok(Self { stemmer: Some(Stemmer::create(*algorithm)), stop })
    }

    /// The words of a text in order.
    pub fn words(&self, text: &str) -> Vec<String> {
        let lower = text.to_lowercase();
        // An apostrophe within a word belongs to it, so that `isn't` is one and `dog's` loses its ending.
        let words = lower.split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '’');
        let words = words.map(|word| word.trim_matches(['\'', '’']).replace('’', "'"));
        let words = words.filter(|word| !word.is_empty() && !self.stop.contains(&word.as_str()));
        words.map(|word| self.stem(&word)).collect()
    }

    fn stem(&self, word: &str) -> String {
        let cut = word.char_indices().nth(MAX_WORD_CHARS).map_or(word.len(), |(at, _)| at);
        let word = &word[..cut];
        match &self.stemmer {
            Some(stemmer) => stemmer.stem(word).into_owned(),
            None => word.to_string(),
        }
    }
}

type Known = (&'static str, Algorithm, &'static [&'static str]);

/// Stop words: the function words of each language's most frequent words, after the lists of the Snowball project.
static LANGUAGES: &[Known] = &[
    (
        "danish",
        Algorithm::Danish,
        &[
            "og", "i", "jeg", "det", "at", "en", "den", "til", "er", "som", "på", "de", "med", "han", "af", "for",
            "ikke", "der", "var", "mig", "sig", "men", "et", "har", "om", "vi", "min", "havde", "ham", "hun", "nu",
            "over", "da", "fra", "du", "ud", "sin", "dem", "os", "op", "man", "hans", "hvor", "eller", "hvad", "skal",
            "her", "alle", "vil", "blev", "kunne", "ind", "når", "være", "dog", "noget", "ville", "jo", "deres",
            "efter", "ned", "skulle", "denne", "end", "dette", "mit", "også", "under", "have", "dig", "anden", "hende",
            "mine", "alt", "meget",
        ],
    ),
    (
        "dutch",
        Algorithm::Dutch,
        &[
            "de", "en", "van", "ik", "te", "dat", "die", "in", "een", "hij", "het", "niet", "zijn", "is", "was", "op",
            "aan", "met", "als", "voor", "had", "er", "maar", "om", "hem", "dan", "zou", "of", "wat", "mijn", "men",
            "dit", "zo", "door", "over", "ze", "zich", "bij", "ook", "tot", "je", "mij", "uit", "der", "daar", "haar",
            "naar", "heb", "hoe", "heeft", "hebben", "deze", "u", "want", "nog", "zal", "me", "zij", "nu", "ge",
            "geen", "omdat", "iets", "worden", "toch", "al", "waren", "veel", "meer", "doen", "toen", "moet", "ben",
            "zonder", "kan", "hun", "dus", "alles", "onder", "ja", "eens", "hier", "wie", "werd", "altijd", "doch",
            "wordt", "kunnen", "ons",
        ],
    ),
    (
        "english",
        Algorithm::English,
        &[
            "a",
            "about",
            "above",
            "after",
            "again",
            "against",
            "all",
            "am",
            "an",
            "and",
            "any",
            "are",
            "aren't",
            "as",
            "at",
            "be",
            "because",
            "been",
            "before",
            "being",
            "below",
            "between",
            "both",
            "but",
            "by",
            "can't",
            "cannot",
            "could",
            "couldn't",
            "did",
            "didn't",
            "do",
            "does",
            "doesn't",
            "doing",
            "don't",
            "down",
            "during",
            "each",
            "few",
            "for",
            "from",
            "further",
            "had",
            "hadn't",
            "has",
            "hasn't",
            "have",
            "haven't",
            "having",
            "he",
            "her",
            "here",
            "hers",
            "herself",
            "him",
            "himself",
            "his",
            "how",
            "i",
            "if",
            "in",
            "into",
            "is",
            "isn't",
            "it",
            "it's",
            "its",
            "itself",
            "me",
            "more",
            "most",
            "my",
            "myself",
            "no",
            "nor",
            "not",
            "of",
            "off",
            "on",
            "once",
            "only",
            "or",
            "other",
            "ought",
            "our",
            "ours",
            "ourselves",
            "out",
            "over",
            "own",
            "same",
            "she",
            "should",
            "shouldn't",
            "so",
            "some",
            "such",
            "than",
            "that",
            "the",
            "their",
            "theirs",
            "them",
            "themselves",
            "then",
            "there",
            "these",
            "they",
            "this",
            "those",
            "through",
            "to",
            "too",
            "under",
            "until",
            "up",
            "very",
            "was",
            "wasn't",
            "we",
            "were",
            "weren't",
            "what",
            "when",
            "where",
            "which",
            "while",
            "who",
            "whom",
            "why",
            "with",
            "won't",
            "would",
            "wouldn't",
            "you",
            "your",
            "yours",
            "yourself",
            "yourselves",
        ],
    ),
    (
        "finnish",
        Algorithm::Finnish,
        &[
            "ja", "on", "ei", "että", "se", "oli", "hän", "ovat", "olla", "mutta", "joka", "kun", "niin", "tai", "ne",
            "ole", "olen", "mitä", "mikä", "sen", "myös", "kuin", "jos", "siitä", "hänen", "minä", "sinä", "me", "te",
            "he", "tämä", "tuo", "nämä", "nuo", "jotka", "sekä", "sillä", "vaan", "vaikka", "mukaan", "kanssa",
            "ollut", "en", "et", "emme", "ette", "eivät", "olet", "olemme", "olette", "olisi", "olivat", "itse",
            "kuka",
        ],
    ),
    (
        "french",
        Algorithm::French,
        &[
            "au", "aux", "avec", "ce", "ces", "dans", "de", "des", "du", "elle", "en", "et", "eux", "il", "ils", "je",
            "la", "le", "les", "leur", "lui", "ma", "mais", "me", "même", "mes", "moi", "mon", "ne", "nos", "notre",
            "nous", "on", "ou", "par", "pas", "pour", "qu", "que", "qui", "sa", "se", "ses", "son", "sur", "ta", "te",
            "tes", "toi", "ton", "tu", "un", "une", "vos", "votre", "vous", "c", "d", "j", "l", "à", "m", "n", "s",
            "t", "y", "est", "sont", "était", "été", "être", "suis", "es", "sommes", "êtes", "ai", "as", "a", "avons",
            "avez", "ont", "avait", "avaient", "eu", "fut", "sera", "cette", "cet", "comme", "si", "où", "dont",
            "sans",
        ],
    ),
    (
        "german",
        Algorithm::German,
        &[
            "aber", "alle", "allem", "allen", "aller", "alles", "als", "also", "am", "an", "ander", "andere",
            "anderen", "auch", "auf", "aus", "bei", "bin", "bis", "bist", "da", "damit", "dann", "das", "dass", "daß",
            "dein", "deine", "dem", "den", "denn", "der", "des", "dich", "die", "dies", "diese", "diesem", "diesen",
            "dieser", "dieses", "dir", "doch", "dort", "du", "durch", "ein", "eine", "einem", "einen", "einer",
            "eines", "er", "es", "etwas", "euch", "euer", "für", "gegen", "hab", "habe", "haben", "hat", "hatte",
            "hatten", "hier", "hin", "hinter", "ich", "ihm", "ihn", "ihnen", "ihr", "ihre", "ihrem", "ihren", "ihrer",
            "im", "in", "ist", "ja", "jede", "jeder", "jetzt", "kann", "kein", "keine", "können", "man", "mein",
            "meine", "mich", "mir", "mit", "nach", "nicht", "nichts", "noch", "nun", "nur", "ob", "oder", "ohne",
            "sehr", "sein", "seine", "seinen", "seiner", "sich", "sie", "sind", "so", "solche", "soll", "sondern",
            "über", "um", "und", "uns", "unser", "unter", "viel", "vom", "von", "vor", "war", "waren", "warum", "was",
            "weil", "welche", "welcher", "wenn", "werde", "werden", "wie", "wieder", "will", "wir", "wird", "wo",
            "würde", "zu", "zum", "zur", "zwar", "zwischen",
        ],
    ),
    (
        "italian",
        Algorithm::Italian,
        &[
            "ad", "al", "allo", "ai", "agli", "alla", "alle", "con", "da", "dal", "dalla", "di", "del", "dello", "dei",
            "degli", "della", "delle", "in", "nel", "nella", "nei", "su", "sul", "sulla", "per", "tra", "contro", "io",
            "tu", "lui", "lei", "noi", "voi", "loro", "mio", "mia", "tuo", "tua", "suo", "sua", "nostro", "vostro",
            "mi", "ti", "ci", "vi", "lo", "la", "li", "le", "gli", "ne", "il", "un", "uno", "una", "ma", "ed", "se",
            "perché", "anche", "come", "dov", "dove", "che", "chi", "cui", "non", "più", "quale", "quanto", "quello",
            "questo", "si", "tutto", "tutti", "a", "c", "e", "i", "l", "o", "ho", "ha", "hanno", "è", "sono", "era",
            "erano", "essere",
        ],
    ),
    (
        "norwegian",
        Algorithm::Norwegian,
        &[
            "og", "i", "jeg", "det", "at", "en", "et", "den", "til", "er", "som", "på", "de", "med", "han", "av",
            "ikke", "der", "så", "var", "meg", "seg", "men", "ett", "har", "om", "vi", "min", "mitt", "ha", "hadde",
            "hun", "nå", "over", "da", "ved", "fra", "du", "ut", "sin", "dem", "oss", "opp", "man", "kan", "hans",
            "hvor", "eller", "hva", "skal", "selv", "her", "alle", "vil", "bli", "ble", "kunne", "inn", "når", "være",
            "kom", "noen", "noe", "ville", "deres", "etter", "ned", "skulle", "denne", "for", "enn", "dette", "under",
            "også",
        ],
    ),
    (
        "portuguese",
        Algorithm::Portuguese,
        &[
            "de", "a", "o", "que", "e", "do", "da", "em", "um", "para", "com", "não", "uma", "os", "no", "se", "na",
            "por", "mais", "as", "dos", "como", "mas", "ao", "ele", "das", "à", "seu", "sua", "ou", "quando", "muito",
            "nos", "já", "eu", "também", "só", "pelo", "pela", "até", "isso", "ela", "entre", "depois", "sem", "mesmo",
            "aos", "seus", "quem", "nas", "me", "esse", "eles", "você", "essa", "num", "nem", "suas", "meu", "às",
            "minha", "numa", "pelos", "elas", "qual", "nós", "lhe", "deles", "é", "são", "foi", "era", "ser", "está",
            "tem",
        ],
    ),
    (
        "russian",
        Algorithm::Russian,
        &[
            "и",
            "в",
            "во",
            "не",
            "что",
            "он",
            "на",
            "я",
            "с",
            "со",
            "как",
            "а",
            "то",
            "все",
            "она",
            "так",
            "его",
            "но",
            "да",
            "ты",
            "к",
            "у",
            "же",
            "вы",
            "за",
            "бы",
            "по",
            "ее",
            "мне",
            "было",
            "вот",
            "от",
            "меня",
            "о",
            "из",
            "ему",
            "когда",
            "нет",
            "для",
            "мы",
            "их",
            "чем",
            "была",
            "без",
            "чего",
            "себя",
            "ей",
            "они",
            "тут",
            "где",
            "есть",
            "надо",
            "ней",
            "мой",
            "тем",
            "чтобы",
            "этот",
            "того",
            "потому",
            "этого",
            "какой",
            "был",
            "быть",
            "при",
            "это",
        ],
    ),
    (
        "spanish",
        Algorithm::Spanish,
        &[
            "de", "la", "que", "el", "en", "y", "a", "los", "del", "se", "las", "por", "un", "para", "con", "no",
            "una", "su", "al", "lo", "como", "más", "pero", "sus", "le", "ya", "o", "este", "sí", "porque", "esta",
            "entre", "cuando", "muy", "sin", "sobre", "también", "me", "hasta", "hay", "donde", "quien", "desde",
            "todo", "nos", "durante", "todos", "uno", "les", "ni", "contra", "otros", "ese", "eso", "ante", "ellos",
            "e", "esto", "mí", "antes", "algunos", "qué", "unos", "yo", "otro", "otras", "otra", "él", "es", "son",
            "fue", "era", "ser", "ha",
        ],
    ),
    (
        "swedish",
        Algorithm::Swedish,
        &[
            "och", "det", "att", "i", "en", "jag", "hon", "som", "han", "på", "den", "med", "var", "sig", "för", "så",
            "till", "är", "men", "ett", "om", "hade", "de", "av", "icke", "mig", "du", "henne", "då", "sin", "nu",
            "har", "inte", "hans", "honom", "skulle", "hennes", "där", "min", "man", "ej", "vid", "kunde", "något",
            "från", "ut", "när", "efter", "upp", "vi", "dem", "vara", "vad", "över", "än", "dig", "kan", "sina", "här",
            "ha", "mot", "alla", "under", "någon", "eller", "allt", "mycket", "sedan", "ju", "denna", "själv", "detta",
            "åt", "utan",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_stemmed_and_without_the_common_ones() {
        let english = Language::named("english").unwrap();
        assert_eq!(
            english.words("The dogs' owner isn't running, the Dog’s café!"),
            ["dog", "owner", "run", "dog", "café"]
        );
        let german = Language::named("german").unwrap();
        assert_eq!(german.words("Die Häuser und das Haus"), ["haus", "haus"]);
        let none = Language::named("none").unwrap();
        assert_eq!(none.words("The dogs"), ["the", "dogs"]);
        assert!(Language::named("klingon").is_err());
        assert!(none.words(&"é".repeat(100))[0].len() <= 2 * MAX_WORD_CHARS);
    }

    /// All of the Snowball project's own vocabularies. Without the data (`../shared/data`) the test says so and passes,
    /// unless `STOCKADE_REQUIRE_REFERENCE=1`.
    #[test]
    fn stems_are_snowballs() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/snowball-stemming");
        if !std::path::Path::new(folder).is_dir() {
            assert!(std::env::var_os("STOCKADE_REQUIRE_REFERENCE").is_none(), "{folder} is missing");
            eprintln!("skipped: {folder} is missing");
            return;
        }
        for (name, words) in [("english", 42_649), ("french", 21_655)] {
            let language = Language::named(name).unwrap();
            let read = |what: &str| std::fs::read_to_string(format!("{folder}/{name}-{what}.txt")).unwrap();
            let (vocabulary, stems) = (read("voc"), read("output"));
            assert_eq!((vocabulary.lines().count(), stems.lines().count()), (words, words));
            let wrong = vocabulary.lines().zip(stems.lines()).filter(|(word, stem)| language.stem(word) != *stem);
            assert_eq!(wrong.collect::<Vec<_>>(), [], "{name}");
        }
    }
}
