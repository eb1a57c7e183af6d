//! The accounts that linked clusters sign in with. Pure.

use std::collections::BTreeMap;

/// Live accounts: name to uid.
#[derive(Debug, Default)]
pub struct AccountTable {
    uids: BTreeMap<String, String>,
}

impl AccountTable {
    /// An account is there. Whether this changes anything.
    pub fn set(&mut self, name: &str, uid: &str) -> bool {
        self.uids.insert(name.to_owned(), uid.to_owned()).as_deref() != Some(uid)
    }

    /// An account is gone. Whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.uids.remove(name).is_some()
    }

    /// These are all. Whether this changes anything.
    pub fn reset(&mut self, uids: BTreeMap<String, String>) -> bool {
        let changed = self.uids != uids;
        self.uids = uids;
        changed
    }

    /// The uid of the account `name`, if it lives.
    pub fn uid(&self, name: &str) -> Option<&str> {
        self.uids.get(name).map(String::as_str)
    }
}
