//! What a process really uses, as the operating system counts it, and what the allocator gives back. `unsafe` is here for the
//! one call of the C library that does the latter.

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

/// Gives free pages of the heap back to the system. Planning makes many small objects that live for milliseconds; without this
/// their pages stay with the process beside the session's own memory (0.5 MiB with 60 layers), since what outlives them lies
/// above. For sessions that give mapped pages back too; elsewhere than with glibc nothing happens.
pub(crate) fn give_back_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: the signature is that of glibc's <malloc.h>; the call may be made from any thread at any time and gives back only
        // pages that hold no allocated object. A program with another global allocator keeps its memory as it is.
        unsafe { malloc_trim(0) };
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
