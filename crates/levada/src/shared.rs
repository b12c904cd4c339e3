//! What all parts of one process share and have to divide: memory, quotas, and where calls may go.

use levada_bus::BusConfig;
use levada_bus::port::KeyScope;
use levada_config::model::Project;
use levada_core::{Egress, MemoryBudget, Quotas, TenantQuotas};
use levada_lake::LakeConfig;

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

    /// The bus within a quarter of the memory. As code for Google's service expects it, which knows
    /// no tenants, the order of a key is everybody's under `--dev`.
    pub fn bus_config(&self, is_dev: bool) -> BusConfig {
        let ordering = if is_dev { KeyScope::Global } else { KeyScope::Tenant };
        BusConfig { quotas: self.quotas.clone(), ordering, ..BusConfig::within(self.memory.limit() / 4) }
    }

    /// The lake's part: queries take half of the memory at most.
    pub fn lake_config(&self) -> LakeConfig {
        let memory_bytes = self.memory.limit() / 2;
        let mut config = LakeConfig { memory_bytes, ..LakeConfig::default() };
        config.model_limits.memory_bytes = config.model_limits.memory_bytes.min(memory_bytes);
        LakeConfig { memory: self.memory.clone(), quotas: self.quotas.clone(), ..config }
    }
}

/// Half of what the process may have: the machine's memory, or the limit of its control group
/// where that is lower.
fn default_memory_bytes() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| meminfo_bytes(&text));
    // Version 2 and version 1 of control groups.
    let files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let groups = files.into_iter().filter_map(|file| read(file)?.trim().parse::<u64>().ok());
    machine
        .into_iter()
        .chain(groups)
        .min()
        .map_or(FALLBACK_BYTES, |bytes| (bytes / 2).max(FALLBACK_BYTES / 4))
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
