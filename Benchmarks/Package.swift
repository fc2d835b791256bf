// swift-tools-version: 6.3
// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import PackageDescription

let gnu: [CSetting] = [.define("_GNU_SOURCE")]

let package = Package(
    name: "Benchmarks",
    dependencies: [
        .package(name: "swift-qcow2", path: ".."),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    ],
    targets: [
        // The command against qemu-img.
        .executableTarget(
            name: "compare",
            dependencies: [.product(name: "ArgumentParser", package: "swift-argument-parser")],
            cSettings: gnu
        ),
        // Reading through the library against qemu-io.
        .executableTarget(
            name: "reads",
            dependencies: [
                .product(name: "QCOW2", package: "swift-qcow2"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            cSettings: gnu
        ),
        // The library's hot loops. Reaches into it, so it is built with -enable-testing: see Scripts/kernels.sh.
        .executableTarget(
            name: "kernels",
            dependencies: [
                .product(name: "QCOW2", package: "swift-qcow2"),
                .product(name: "QCOW2Testing", package: "swift-qcow2"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            cSettings: gnu
        ),
    ],
    swiftLanguageModes: [.v6]
)
