// Copyright the libpaligemma authors. SPDX-License-Identifier: Apache-2.0
//! Where the library is: the folder PALIGEMMA_LIBRARY, else what pkg-config says.
use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=PALIGEMMA_LIBRARY");
    println!("cargo:rustc-link-lib=dylib=paligemma");
    if let Ok(folder) = env::var("PALIGEMMA_LIBRARY") {
        println!("cargo:rustc-link-search=native={}", folder);
        return;
    }
    let asked = Command::new("pkg-config")
        .args(["--variable=libdir", "paligemma"])
        .output();
    match asked {
        Ok(output) if output.status.success() => {
            println!(
                "cargo:rustc-link-search=native={}",
                String::from_utf8_lossy(&output.stdout).trim()
            );
        }
        _ => panic!(
            "pkg-config finds no libpaligemma: install it, or set PKG_CONFIG_PATH, or PALIGEMMA_LIBRARY to the folder \
             of libpaligemma.so"
        ),
    }
}
