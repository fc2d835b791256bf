// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

internal import Foundation

/// Images that real tools made; `README.md` beside them says how.
public enum Fixtures {
    /// The path of an image.
    public static func path(_ name: String) -> String {
        Bundle.module.resourceURL?.appendingPathComponent("Images/\(name)").path ?? name
    }

    /// The bytes of an image.
    public static func bytes(_ name: String) throws -> [UInt8] {
        [UInt8](try Data(contentsOf: URL(fileURLWithPath: path(name))))
    }

    /// The names of the files that the fuzzer's target `image` once failed on.
    public static let crashNames: [String] = {
        let folder = Bundle.module.resourceURL?.appendingPathComponent("Crashes").path ?? "Crashes"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.filter { $0.hasPrefix("image-") }.sorted()
    }()

    /// The bytes of such a file.
    public static func crash(_ name: String) throws -> [UInt8] { try bytes("../Crashes/\(name)") }
}
