// swift-tools-version: 6.3
// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import PackageDescription

// Makes Linux's file calls (fallocate, open-file-description locks) visible. On every target, or clang modules disagree.
let gnu: [CSetting] = [.define("_GNU_SOURCE")]

let package = Package(
    name: "swift-qcow2",
    products: [
        .library(name: "QCOW2", targets: ["QCOW2"]),
        .library(name: "QCOW2Testing", targets: ["QCOW2Testing"]),
        .executable(name: "qsnap", targets: ["qsnap"]),
    ],
    traits: [
        .trait(name: "Zstd", description: "Reads clusters that are compressed with zstd; needs libzstd."),
        .default(enabledTraits: ["Zstd"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
    ],
    targets: [
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"]), .brew(["zlib"])]),
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"]), .brew(["zstd"])]),
        .systemLibrary(name: "CCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"]), .brew(["openssl"])]),
        // Functions in a header, which only Linux has a use for.
        .systemLibrary(name: "CSandbox"),
        .target(
            name: "QCOW2",
            dependencies: ["CZlib", .target(name: "CZstd", condition: .when(traits: ["Zstd"]))],
            cSettings: gnu
        ),
        .target(name: "QCOW2Testing", dependencies: ["QCOW2"], cSettings: gnu),
        .executableTarget(
            name: "qsnap",
            dependencies: [
                "QCOW2", .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .target(name: "CCrypto", condition: .when(platforms: [.linux])),
                .target(name: "CSandbox", condition: .when(platforms: [.linux])),
            ],
            cSettings: gnu
        ),
        .executableTarget(name: "make-disk", dependencies: ["QCOW2"], path: "Examples/make-disk", cSettings: gnu),
        .executableTarget(name: "read-state", dependencies: ["QCOW2"], path: "Examples/read-state", cSettings: gnu),
        .target(
            name: "Fixtures",
            path: "Fixtures",
            exclude: ["README.md"],
            resources: [.copy("Crashes"), .copy("Images")],
            cSettings: gnu
        ),
        .testTarget(
            name: "QCOW2Tests", dependencies: ["QCOW2", "QCOW2Testing", "Fixtures", "TestTools"], cSettings: gnu),
        .target(name: "TestTools", dependencies: ["QCOW2", "QCOW2Testing"], path: "Tests/TestTools", cSettings: gnu),
        .testTarget(
            name: "qsnapTests",
            dependencies: [
                "qsnap", "QCOW2", "QCOW2Testing", "Fixtures", "TestTools",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            cSettings: gnu
        ),
        .testTarget(
            name: "InteropTests",
            dependencies: ["QCOW2", "QCOW2Testing", "Fixtures", "TestTools", "qsnap"],
            exclude: ["QemuImg/snapshot-if-missing.sh", "QemuImg/sizes-of-all.sh"],
            cSettings: gnu
        ),
        .testTarget(
            name: "AttackTests", dependencies: ["QCOW2", "QCOW2Testing", "Fixtures", "TestTools", "qsnap"],
            cSettings: gnu),
    ],
    swiftLanguageModes: [.v6]
)

for target in package.targets where target.type != .system {
    var settings: [SwiftSetting] = [
        .enableUpcomingFeature("ExistentialAny"),  // SE-0335
        .enableUpcomingFeature("InternalImportsByDefault"),  // SE-0409
        .enableUpcomingFeature("MemberImportVisibility"),  // SE-0444
    ]
    if target.type != .test { settings.append(.strictMemorySafety()) }  // SE-0458
    target.swiftSettings = settings
}
