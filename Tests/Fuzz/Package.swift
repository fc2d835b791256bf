// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import PackageDescription

// Built by Scripts/fuzz.sh only: without -sanitize=fuzzer there is no main function to link.
let package = Package(
    name: "Fuzz",
    dependencies: [
        .package(name: "swift-qcow2", path: "../..")
    ],
    targets: [
        .executableTarget(
            name: "Fuzz",
            dependencies: [
                .product(name: "QCOW2", package: "swift-qcow2"),
                .product(name: "QCOW2Testing", package: "swift-qcow2"),
            ],
            cSettings: [.define("_GNU_SOURCE")]
        )
    ],
    swiftLanguageModes: [.v6]
)
