//! Disks that hang: a library before the C library's, in which `fdatasync` waits for as long as a file is there.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::common::tools::available;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *hangs = getenv("ZABRA_TEST_HANG");
    while (hangs && access(hangs, F_OK) == 0) usleep(5000);
    return real(fd);
}
"#;

/// See the module's documentation.
pub(crate) struct Hang {
    directory: tempfile::TempDir,
}

impl Hang {
    /// Skips (or fails) without a C compiler.
    pub(crate) fn new() -> Option<Hang> {
        let directory = tempfile::Builder::new().prefix("zabra-hang").tempdir().expect("a directory");
        let hang = Hang { directory };
        let source = hang.directory.path().join("hang.c");
        fs::write(&source, SOURCE).expect("a source file");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(hang.library()).arg(&source).arg("-ldl");
        let built = match cc.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("cc ({status})")),
            Err(error) => Err(format!("cc ({error})")),
        };
        available(&built)?;
        Some(hang)
    }

    fn library(&self) -> PathBuf {
        self.directory.path().join("hang.so")
    }

    fn flag(&self, id: usize) -> PathBuf {
        self.directory.path().join(id.to_string())
    }

    /// What the process of a node is started with.
    pub(crate) fn environment(&self, id: usize) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.library()), ("ZABRA_TEST_HANG", self.flag(id))]
    }

    pub(crate) fn begin(&self, id: usize) {
        fs::write(self.flag(id), "").expect("a file");
    }

    pub(crate) fn end(&self, id: usize) {
        fs::remove_file(self.flag(id)).expect("it hangs");
    }
}
