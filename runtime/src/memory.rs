//! What a process really uses, as the operating system counts it.

use serde::Serialize;

/// Memory of this process in bytes. On Linux from `/proc/self/status`; elsewhere every field is `None`, because
/// there is no portable counter, and a wrong one would be worse than none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProcessMemory {
    /// Largest resident size so far (`VmHWM`).
    pub peak: Option<u64>,
    /// Resident size now (`VmRSS`).
    pub resident: Option<u64>,
    /// Heap, stacks and other private pages (`RssAnon`).
    pub anonymous: Option<u64>,
    /// Pages of mapped files, the model and the executable among them (`RssFile`).
    pub file: Option<u64>,
}

/// Reads the counters.
pub fn process_memory() -> ProcessMemory {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line
            .trim_start_matches(':')
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse()
            .ok()?;
        kib.checked_mul(1024)
    };
    ProcessMemory {
        peak: field("VmHWM"),
        resident: field("VmRSS"),
        anonymous: field("RssAnon"),
        file: field("RssFile"),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn counters_are_plausible() {
        let memory = super::process_memory();
        assert!(memory.peak >= memory.resident && memory.resident > Some(100_000));
    }
}
