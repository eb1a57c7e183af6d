//! Objects kept as JSON text: a fifth of what they take when every field has its place.

use crate::snapshot::standing::State;
use kube::ResourceExt;
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;

/// An object, or a part of one, as JSON.
#[derive(Debug)]
pub struct Packed<T> {
    json: Box<[u8]>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Packed<T> {
    fn clone(&self) -> Self {
        Self { json: self.json.clone(), of: PhantomData }
    }
}

impl<T> PartialEq for Packed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl<T: Serialize + DeserializeOwned + Default> Packed<T> {
    /// Packs `value`.
    pub fn new(value: &T) -> Self {
        // Values of the API have text keys throughout, so they can be written as JSON.
        Self { json: serde_json::to_vec(value).unwrap_or_default().into(), of: PhantomData }
    }

    /// The value. It was written by [`Packed::new`], so it can be read.
    pub fn open(&self) -> T {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }
}

/// A packed object with the state it is in.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedObject<T> {
    /// Its state.
    pub state: State,
    /// The object.
    pub object: Packed<T>,
}

impl<T: Serialize + DeserializeOwned + Default + ResourceExt> PackedObject<T> {
    /// Packs `object`, without what nobody here reads.
    pub fn new(mut object: T) -> Self {
        object.meta_mut().managed_fields = None;
        Self { state: State::of(&object), object: Packed::new(&object) }
    }
}

impl<T> AsRef<State> for PackedObject<T> {
    fn as_ref(&self) -> &State {
        &self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;

    #[test]
    fn an_object_comes_out_as_it_went_in() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "labels": {"b": "c"}}, "spec": {"ports": [{"port": 80, "targetPort": "http"}]}
        }))
        .unwrap();
        assert_eq!(Packed::new(&service).open(), service);
    }
}
