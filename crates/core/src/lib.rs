//! Core vocabulary of Levada: tenants, names, messages, principals, time, and the
//! small mechanisms (retry, breaker, token bucket) that every layer shares.
//!
//! This crate does no IO and reads no ambient time or randomness: a clock and an id
//! source are passed in, so that simulations replay from a seed.

pub mod admission;
pub mod breaker;
pub mod clock;
pub mod egress;
pub mod exact;
pub mod ids;
pub mod limits;
pub mod memory;
pub mod message;
pub mod names;
pub mod numbered;
pub mod owned_memory;
pub mod principal;
pub mod problem;
pub mod quota;
pub mod retry;
pub mod sign_ins;
pub mod source;
pub mod tenant_header;

pub use admission::{Admission, RequestPlace};
pub use breaker::{Breaker, BreakerConfig, BreakerState};
pub use clock::{Clock, ManualClock, SystemClock};
pub use egress::{Egress, EgressRule, EgressRuleError};
pub use exact::{Exact, MAX_DIGITS, Misfit, decimal_text};
pub use ids::{IdSource, RandomIds, SeededIds};
pub use limits::{Decision, TokenBucket};
pub use memory::{MemoryBudget, MemoryHold, MemoryUse};
pub use message::{Attributes, Message, attr};
pub use names::{
    NameError, ProjectId, ResourceId, ResourceName, SourceName, TableName, TenantId, TopicName, Zone,
};
pub use numbered::{DeadlineSet, NumberMap};
pub use owned_memory::{OwnedHold, OwnedMemory};
pub use principal::{Authenticator, Principal, Role, TenantContext, TenantSet};
pub use problem::{Problem, TextPosition};
pub use quota::{Quota, QuotaOwner, QuotaPlace, QuotaUse, Quotas, TenantQuotas};
pub use retry::Backoff;
pub use sign_ins::SignIns;
pub use source::{ReadError, Record, RecordBatchIn, RecordReader, Reject};
pub use tenant_header::named_tenant;
