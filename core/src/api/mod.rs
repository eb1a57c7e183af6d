//! What must be the same everywhere, one file per topic.

pub mod condition;
pub mod controller_report;
pub mod copying;
pub mod crds;
pub mod credentials;
pub mod duration;
pub mod exported_service;
pub mod gateway_report;
pub mod identity;
pub mod labels;
pub mod link;
pub mod names;
pub mod pod;
pub mod reason;
pub mod route_group;
pub mod selector;
pub mod selector_text;
pub mod slice;
pub mod split;
pub mod split_report;
pub mod traffic_split;
