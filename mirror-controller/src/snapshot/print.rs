//! Prints: whether two values are the same, without keeping either.

use aws_lc_rs::digest::{Context, SHA256};
use serde::Serialize;
use std::{fmt, io};

/// Half of the SHA-256 of a value's JSON: equal prints mean equal values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Print([u8; 16]);

impl Print {
    /// The print of `value`.
    pub fn of(value: &impl Serialize) -> Self {
        let mut digest = Digest(Context::new(&SHA256));
        // Writing into a digest cannot fail, and what is printed here has text keys throughout.
        let _ = serde_json::to_writer(&mut digest, value);
        let mut half = [0; 16];
        half.copy_from_slice(&digest.0.finish().as_ref()[..16]);
        Self(half)
    }
}

impl fmt::Debug for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

struct Digest(Context);

impl io::Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_equal_prints() {
        assert_eq!(Print::of(&["a", "b"]), Print::of(&["a", "b"]));
        assert_ne!(Print::of(&["a", "b"]), Print::of(&["b", "a"]));
    }
}
