//! What all parts of one process share and have to divide: memory, quotas, and where calls may go.

use levada_config::model::Project;
use levada_core::{Egress, MemoryBudget, Quotas, TenantQuotas};

/// Held by the process where neither `levada.yaml` nor the system says how much there is.
const FALLBACK_BYTES: u64 = 1 << 30;

/// See the module's description. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shared {
    pub memory: MemoryBudget,
    pub quotas: Quotas,
    pub egress: Egress,
}

impl Shared {
    /// `local`: the server serves this machine only and without credentials, so it may also call it.
    pub fn of(project: &Project, local: bool) -> Self {
        let server = &project.server;
        let bytes = server.memory_bytes.unwrap_or_else(default_memory_bytes);
        let own = project.tenants.iter().map(|t| (t.id.clone(), t.quotas.clone()));
        let by_tenant: TenantQuotas = own.filter(|(_, quotas)| !quotas.is_empty()).collect();
        let egress = Egress::new(server.egress.iter().cloned());
        Self {
            memory: MemoryBudget::new(usize::try_from(bytes).unwrap_or(usize::MAX)),
            quotas: Quotas::new(&server.quotas, &by_tenant),
            egress: if local { egress.with_loopback() } else { egress },
        }
    }
}

/// Half of what the process may have: the machine's memory, or the limit of its control group
/// where that is lower.
fn default_memory_bytes() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| meminfo_bytes(&text));
    let group = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse::<u64>().ok());
    machine.into_iter().chain(group).min().map_or(FALLBACK_BYTES, |bytes| (bytes / 2).max(FALLBACK_BYTES / 4))
}

/// `MemTotal` of a text in the form of /proc/meminfo.
fn meminfo_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_how_much_it_has() {
        assert_eq!(meminfo_bytes("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16 << 10));
        assert_eq!(meminfo_bytes("nothing"), None);
    }
}
