//! What our EndpointSlices tell the gateways: which port leads to which Service of which link.
//!
//! The slices are the authority: gateways bind the ports they name, and the controller reads its allocation back
//! from them after a restart.

use crate::api::{
    labels::{SLICE_LINK, SLICE_PORTS, SLICE_TARGET},
    names::Target,
};
use std::collections::BTreeMap;

/// What a slice of ours says, apart from the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceRoute {
    /// The Link whose gateway serves these ports.
    pub link: String,
    /// Where each port of the gateway leads to.
    pub ports: BTreeMap<u16, Target>,
}

/// Why a slice's annotations cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// An annotation is missing.
    #[error("annotation {0} is missing")]
    Missing(&'static str),
    /// An annotation has another form than we write.
    #[error("annotation {0} is {1:?}, which has another form than expected")]
    Form(&'static str, String),
    /// What is said of a split cannot be read.
    #[error("{0}")]
    Split(String),
}

impl SliceRoute {
    /// Reads the annotations of one of our slices.
    ///
    /// # Errors
    /// When an annotation is missing or was changed by hand into something else.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Self, SliceError> {
        let get = |key: &'static str| annotations.get(key).ok_or(SliceError::Missing(key));
        let (link, target, pairs) = (get(SLICE_LINK)?, get(SLICE_TARGET)?, get(SLICE_PORTS)?);
        let mut ports = BTreeMap::new();
        for pair in pairs.split(',').filter(|p| !p.is_empty()) {
            let wrong = || SliceError::Form(SLICE_PORTS, pairs.clone());
            let (ours, theirs) = pair.split_once('=').ok_or_else(wrong)?;
            let ours: u16 = ours.parse().map_err(|_| wrong())?;
            let target = format!("{target}:{theirs}")
                .parse()
                .map_err(|_| SliceError::Form(SLICE_TARGET, format!("{target}:{theirs}")))?;
            ports.insert(ours, target);
        }
        Ok(Self { link: link.clone(), ports })
    }

    /// The annotations that say the same. `ports` must lead to one Service, or one pod of it; an empty map has no
    /// annotations.
    pub fn to_annotations(&self) -> BTreeMap<String, String> {
        let Some(target) = self.ports.values().next() else { return BTreeMap::new() };
        let name = target.to_string();
        let name = name.rsplit_once(':').map_or(name.as_str(), |(name, _)| name);
        let pairs: Vec<String> = self.ports.iter().map(|(ours, t)| format!("{ours}={}", t.port)).collect();
        BTreeMap::from([
            (SLICE_LINK.to_owned(), self.link.clone()),
            (SLICE_TARGET.to_owned(), name.to_owned()),
            (SLICE_PORTS.to_owned(), pairs.join(",")),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_read_back() {
        for name in ["my-api.default", "web-0.web.prod"] {
            let route = SliceRoute {
                link: "west".to_owned(),
                ports: BTreeMap::from([
                    (10007, format!("{name}:8080").parse().unwrap()),
                    (10008, format!("{name}:9090").parse().unwrap()),
                ]),
            };
            assert_eq!(SliceRoute::from_annotations(&route.to_annotations()), Ok(route));
        }
    }

    #[test]
    fn annotations_changed_by_hand_are_refused_by_name() {
        let mut annotations = SliceRoute {
            link: "west".to_owned(),
            ports: BTreeMap::from([(10007, "my-api.default:8080".parse().unwrap())]),
        }
        .to_annotations();
        annotations.insert(SLICE_PORTS.to_owned(), "10007:8080".to_owned());
        assert_eq!(
            SliceRoute::from_annotations(&annotations),
            Err(SliceError::Form(SLICE_PORTS, "10007:8080".to_owned()))
        );
        annotations.remove(SLICE_LINK);
        assert_eq!(SliceRoute::from_annotations(&annotations), Err(SliceError::Missing(SLICE_LINK)));
    }
}
