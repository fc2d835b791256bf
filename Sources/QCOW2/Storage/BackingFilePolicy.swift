// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

#if canImport(Darwin)
    internal import Darwin
#elseif canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#endif

/// Says which backing files an image may make the library open.
///
/// An image names its backing file, and whoever made the image chose that name: opening it blindly would hand out any
/// file that the process can read. So nothing is opened that the caller's policy doesn't allow, file by file. What is
/// opened is what was allowed: the file at that very path, to which no symbolic link leads by then.
public struct BackingFilePolicy: Sendable {
    let allows: @Sendable (BackingFileRequest) -> Bool

    /// A policy of one's own; asked once for each file of a chain, when the chain is opened.
    public init(_ allows: @escaping @Sendable (BackingFileRequest) -> Bool) { self.allows = allows }

    /// Opens no other file.
    public static let none = Self { _ in false }

    /// Opens files in the directory of the image that names them, and nothing that a symbolic link finds elsewhere.
    public static let sameDirectory = Self { $0.isInDirectoryOfImage }

    /// Opens any regular file that the process may read: only for images from a trusted source.
    public static let anyFile = Self { _ in true }

    /// Opens these files and no others, whichever way the image spells their paths.
    public static func files(_ paths: [String]) -> Self {
        let allowed = Set(paths.compactMap(canonicalPath))
        return Self { allowed.contains($0.path) }
    }
}

/// A backing file that an image asks for.
public struct BackingFileRequest: Hashable, Sendable {
    /// The name as the image gives it.
    public let name: String
    /// The format as the image gives it: `raw` or `qcow2`.
    public let format: String
    /// Where the name leads: absolute and without symbolic links, if there is such a file.
    public let path: String
    /// The path of the image that names the file.
    public let imagePath: String
    /// How far down the chain the file would be; 1 is the backing file of the image itself.
    public let depth: Int

    /// Where the image is: absolute and without symbolic links, and looked at once; `nil` when its path leads to
    /// another file by now.
    let imageDirectory: String?
    /// Why the name leads nowhere, if so.
    let failure: SystemError?

    /// Whether the file itself, and not just a link to it, is in the directory of the image that names it.
    public var isInDirectoryOfImage: Bool {
        guard let imageDirectory else { return false }
        return (directoryOfFile(path) ?? "") == (imageDirectory == "/" ? "" : imageDirectory)
    }
}

/// The part of a path in front of its last slash, empty for the root; `nil` without a slash.
func directoryOfFile(_ path: String) -> String? {
    path.utf8.lastIndex(of: UInt8(ascii: "/")).map { String(path[..<$0]) }
}

/// The absolute path without symbolic links; `nil` when it leads nowhere.
func canonicalPath(_ path: String) -> String? {
    // SAFETY: the call returns no text, or a terminated one that is ours to free.
    guard let text = unsafe realpath(path.isEmpty ? "/" : path, nil) else { return nil }
    defer { unsafe free(text) }
    return unsafe String(validatingCString: text)
}
