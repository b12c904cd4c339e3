//! Which traces are exported, by the samplers of the OpenTelemetry specification.
//!
//! Every decision is a function of the trace id and of the parent's flag, so that a publish and
//! a delivery that knows nothing of it decide alike.

use crate::context::TraceId;

/// What decides where there is no parent to follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Root {
    Always,
    Never,
    /// This share of traces, 0 to 1.
    Ratio(f64),
}

/// A configured sampler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    root: Root,
    /// Do as the parent did, where there is one.
    follows_parent: bool,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { root: Root::Always, follows_parent: true }
    }
}

impl Sampler {
    pub fn new(root: Root) -> Self {
        Self { root, follows_parent: false }
    }

    pub fn following_parents(root: Root) -> Self {
        Self { root, follows_parent: true }
    }

    /// The sampler of that name in `OTEL_TRACES_SAMPLER`, with its argument.
    ///
    /// # Errors
    /// Which of the two is wrong, and how to mend it.
    pub fn parse(name: &str, argument: Option<&str>) -> Result<Self, String> {
        let follows_parent = name.starts_with("parentbased_");
        let root = match name.strip_prefix("parentbased_").unwrap_or(name) {
            "always_on" => Root::Always,
            "always_off" => Root::Never,
            "traceidratio" => Root::Ratio(ratio(argument)?),
            _ => {
                return Err(format!(
                    "`{name}` is no sampler known here: use always_on, always_off, traceidratio or one of \
                     them with `parentbased_` before it"
                ));
            }
        };
        Ok(Self { root, follows_parent })
    }

    /// Whether nothing that lacks a sampled parent is ever sampled.
    pub fn is_quiet(&self) -> bool {
        match self.root {
            Root::Never => true,
            Root::Ratio(ratio) => ratio <= 0.0,
            Root::Always => false,
        }
    }

    /// Whether a span of this trace is exported. `parent_sampled`: the flag of the context that
    /// came with the message, if one did.
    pub fn samples(&self, trace: TraceId, parent_sampled: Option<bool>) -> bool {
        match (self.follows_parent, parent_sampled) {
            (true, Some(sampled)) => sampled,
            _ => match self.root {
                Root::Always => true,
                Root::Never => false,
                Root::Ratio(ratio) => is_within(trace, ratio),
            },
        }
    }
}

/// The last 56 bits of a trace id are random, the others need not be: an id of ours that is made of a
/// UUID has the time and fixed bits there.
///
/// Source: W3C "Trace Context" level 2, "Random Trace ID Flag"; OpenTelemetry specification,
/// "Probability sampling": sampled are those at or above the share that is rejected.
fn is_within(trace: TraceId, ratio: f64) -> bool {
    const RANDOM: u64 = (1 << 56) - 1;
    let random = u64::from_be_bytes(*trace.0.last_chunk().unwrap_or(&[0; 8])) & RANDOM;
    random >= ((1.0 - ratio) * (RANDOM + 1) as f64) as u64
}

fn ratio(argument: Option<&str>) -> Result<f64, String> {
    let Some(text) = argument else { return Ok(1.0) };
    let ratio = text.trim().parse::<f64>().ok().filter(|r| (0.0..=1.0).contains(r));
    ratio.ok_or_else(|| format!("the sampler's argument `{text}` is no number from 0 to 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random but for the bits that are fixed in a UUID.
    fn trace(n: u64) -> TraceId {
        let mut trace = TraceId::of("test", &[&n.to_le_bytes()]);
        trace.0[6] = trace.0[6] & 0x0f | 0x70;
        trace.0[8] = trace.0[8] & 0x3f | 0x80;
        trace
    }

    #[test]
    fn a_ratio_takes_about_that_share_and_a_parent_decides_before_it() {
        let sampler = Sampler::parse("parentbased_traceidratio", Some("0.25")).unwrap();
        let taken = (0..10_000).filter(|n| sampler.samples(trace(*n), None)).count();
        assert!((2_300..2_700).contains(&taken), "{taken} of 10,000");
        assert!((0..100).all(|n| sampler.samples(trace(n), Some(true))));
        assert!((0..100).all(|n| !sampler.samples(trace(n), Some(false))));
        let own = Sampler::parse("traceidratio", Some("0")).unwrap();
        assert!((0..100).all(|n| !own.samples(trace(n), Some(true))), "it follows no parent");
        assert!(own.is_quiet());
    }

    #[test]
    fn names_and_arguments_that_mean_nothing_are_refused() {
        assert!(Sampler::parse("jaeger_remote", None).unwrap_err().contains("parentbased_"));
        assert!(Sampler::parse("traceidratio", Some("1.5")).unwrap_err().contains("0 to 1"));
        assert!(Sampler::parse("traceidratio", Some("NaN")).is_err());
        assert_eq!(Sampler::parse("parentbased_always_on", None), Ok(Sampler::default()));
    }
}
