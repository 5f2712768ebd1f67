//! What a process really uses, as the operating system counts it, and what goes back to it: free heap, and code that has run.
//! `unsafe` is here for the two calls of the C library that do the latter.

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

/// Gives back the pages of the code that this is a part of, of a program 3 MB. What opening a model or planning needs of it never
/// runs again, and what does is mapped anew from the page cache, 64 KiB at a time, which cannot be measured beside planning. For sessions
/// that give mapped pages back too; elsewhere than on Linux nothing happens.
pub(crate) fn give_back_code() {
    #[cfg(target_os = "linux")]
    {
        unsafe extern "C" {
            fn madvise(from: *mut u8, len: usize, advice: i32) -> i32;
        }
        const DONTNEED: i32 = 4;
        if let Some(code) = unchanged_code(give_back_code as fn() as usize) {
            // SAFETY: the signature is that of <sys/mman.h>. The range is one mapping of a file, which holds this function and so
            // stays where it is; it is not writable, and no page of it differs from the file (nobody has set a
            // breakpoint), so whatever is read from it later is what was there.
            unsafe { madvise(code.start as *mut u8, code.len(), DONTNEED) };
        }
    }
}

/// The mapping of code around an address, if all its pages are those of its file.
#[cfg(target_os = "linux")]
fn unchanged_code(at: usize) -> Option<std::ops::Range<usize>> {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let mut code: Option<std::ops::Range<usize>> = None;
    for line in text.as_bytes().split(|&byte| byte == b'\n') {
        if code.is_some() && line.starts_with(b"Anonymous:") {
            return code.filter(|_| line.ends_with(b" 0 kB"));
        }
        let (start, rest) = hexadecimal(line);
        let (end, rest) = hexadecimal(rest.get(1..).unwrap_or_default());
        if start <= at && at < end && rest.starts_with(b" r-xp") {
            code = Some(start..end);
        }
    }
    None
}

/// The number that a text begins with, and what follows it.
#[cfg(target_os = "linux")]
fn hexadecimal(text: &[u8]) -> (usize, &[u8]) {
    let (mut number, mut rest) = (0usize, text);
    while let [byte, after @ ..] = rest {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => break,
        };
        number = number.wrapping_mul(16).wrapping_add(usize::from(digit));
        rest = after;
    }
    (number, rest)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn code_that_was_given_back_still_runs() {
        let own = super::give_back_code as fn() as usize;
        let code = super::unchanged_code(own).unwrap();
        assert!(code.contains(&own));
        for _ in 0..3 {
            super::give_back_code();
            assert_eq!(super::unchanged_code(own), Some(code.clone()));
        }
        // The stack is mapped, but no code.
        assert_eq!(super::unchanged_code(&raw const code as usize), None);
    }

    #[test]
    fn counters_are_plausible() {
        let memory = super::process_memory();
        assert!(memory.peak >= memory.resident && memory.resident > Some(100_000));
    }
}
