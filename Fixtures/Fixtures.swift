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
}
