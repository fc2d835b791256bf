// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import PackageDescription

let package = Package(
    name: "Benchmarks",
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
    ],
    targets: [
        .executableTarget(
            name: "compare",
            dependencies: [.product(name: "ArgumentParser", package: "swift-argument-parser")],
            cSettings: [.define("_GNU_SOURCE")]
        )
    ],
    swiftLanguageModes: [.v6]
)
