//! A bundle of texts without secrets, as a compressed archive. Pure, but for [`Bundle::write`].

use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

/// What a private key is replaced by.
const NO_KEY: &str = "<a private key was removed>";
/// What a token is replaced by.
const NO_TOKEN: &str = "<a token was removed>";
/// Annotation that repeats a whole object as it was applied, whatever it holds.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Texts by their path in the archive.
#[derive(Debug, Default)]
pub(super) struct Bundle(BTreeMap<String, String>);

impl Bundle {
    /// Adds a text, without what looks like a key or a token.
    pub(super) fn add(&mut self, path: &str, text: &str) {
        self.0.insert(path.to_owned(), without_secrets(text));
    }

    /// Adds objects as YAML documents, without what only API servers need.
    pub(super) fn add_objects(&mut self, path: &str, objects: Vec<Value>) {
        let mut text = String::new();
        for mut object in objects {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("managedFields");
                if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                    annotations.remove(LAST_APPLIED);
                }
            }
            text.push_str("---\n");
            text.push_str(&crate::output::yaml(&object));
        }
        self.add(path, &text);
    }

    /// How many texts there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Writes `<folder>/<path>` of each text as a compressed tar archive.
    pub(super) fn write(&self, to: impl Write, folder: &str, now: Timestamp) -> io::Result<()> {
        let mut archive = tar::Builder::new(GzEncoder::new(to, Compression::default()));
        for (path, text) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(now.as_second().unsigned_abs());
            archive.append_data(&mut header, format!("{folder}/{path}"), text.as_bytes())?;
        }
        archive.into_inner()?.finish()?.flush()
    }
}

/// The text without private keys (PEM) and tokens (JWT).
fn without_secrets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside_key = false;
    for line in text.split_inclusive('\n') {
        if line.contains("-----BEGIN ") && line.contains("PRIVATE KEY-----") {
            out.push_str(NO_KEY);
            out.push('\n');
            inside_key = !line.contains("-----END ");
        } else if inside_key {
            inside_key = !line.contains("-----END ");
        } else {
            push_without_tokens(&mut out, line);
        }
    }
    out
}

fn push_without_tokens(out: &mut String, line: &str) {
    let in_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let mut rest = line;
    while let Some(start) = rest.find(in_word) {
        let length = rest[start..].find(|c| !in_word(c)).unwrap_or(rest.len() - start);
        let word = &rest[start..start + length];
        out.push_str(&rest[..start]);
        out.push_str(if is_token(word) { NO_TOKEN } else { word });
        rest = &rest[start + length..];
    }
    out.push_str(rest);
}

/// Whether `word` looks like a signed token: three parts, of which the first is JSON in base64.
fn is_token(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    parts.len() == 3 && word.len() > 60 && parts[0].starts_with("eyJ") && parts[1].starts_with("eyJ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use proptest::prelude::*;
    use serde_json::json;
    use std::io::Read;

    fn token() -> String {
        format!("eyJhbGciOiJSUzI1NiJ9.eyJ{}.{}", "a".repeat(80), "b".repeat(80))
    }

    #[test]
    fn keys_and_tokens_are_removed_and_all_else_stays() {
        let text = format!(
            "a: 1\n-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\nlog \"{}\" v1.2.3 end\n",
            token()
        );
        assert_eq!(without_secrets(&text), format!("a: 1\n{NO_KEY}\nlog \"{NO_TOKEN}\" v1.2.3 end\n"));
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert_eq!(without_secrets(certificate), certificate);
    }

    proptest! {
        #[test]
        fn no_token_comes_through(before in ".{0,40}", after in ".{0,40}") {
            let text = format!("{before} {} {after}", token());
            prop_assert!(!without_secrets(&text).contains(&token()));
        }

        #[test]
        fn what_holds_no_secret_is_kept(text in "[a-z .,:/\\n\"=-]{0,200}") {
            prop_assert_eq!(without_secrets(&text), text);
        }
    }

    #[test]
    fn an_archive_holds_each_text() {
        let mut bundle = Bundle::default();
        let annotations = json!({LAST_APPLIED: "secret", "team": "a"});
        bundle.add_objects(
            "objects/x.yaml",
            vec![json!({"metadata": {"annotations": annotations, "managedFields": []}})],
        );
        bundle.add("b.txt", "hello");
        let mut bytes = vec![];
        bundle.write(&mut bytes, "folder", Timestamp::UNIX_EPOCH).unwrap();
        let mut archive = tar::Archive::new(GzDecoder::new(bytes.as_slice()));
        let mut texts = vec![];
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            texts.push((entry.path().unwrap().display().to_string(), text));
        }
        let object = "---\nmetadata:\n  annotations:\n    team: a\n".to_owned();
        assert_eq!(
            texts,
            [("folder/b.txt".into(), "hello".to_owned()), ("folder/objects/x.yaml".into(), object)]
        );
    }
}
