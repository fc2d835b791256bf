// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

/// A file that must not be replaced by what is read from it: one of a backing chain, or one that a file of it names.
struct NamedFile: Hashable, Sendable {
    /// The path, for messages.
    let name: String
    private let path: [UInt8]
    /// That of the open file; without one, the file isn't open, and is whatever is at the path.
    private let openIdentity: FileStorage.Identity?

    /// An open file.
    init(open name: String, _ identity: FileStorage.Identity?) {
        self.name = name
        path = Array(name.utf8)
        openIdentity = identity
    }

    private init(path: [UInt8]) {
        name = escaped(path)
        self.path = path
        openIdentity = nil
    }

    /// Whether it is the file with this identity.
    ///
    /// Of a file that isn't open only the status is looked at.
    func isFile(_ identity: FileStorage.Identity) -> Bool {
        (openIdentity ?? FileStorage.Identity(path: path)) == identity
    }

    /// The files that a name inside an image may mean, whichever way a program takes it.
    ///
    /// Too many is harmless: a file is only taken for one of them if it is there, and the same.
    static func candidates(_ name: [UInt8], of imagePath: String) -> [Self] {
        var names = [name]
        if name.starts(with: "file:".utf8) { names.append(Array(name.dropFirst("file:".utf8.count))) }
        // Every text inside `json:{...}`, without following what the keys mean.
        if name.starts(with: "json:".utf8) { names += name.split(separator: UInt8(ascii: "\"")).map { Array($0) } }
        let folder = directoryOfFile(imagePath).map { Array($0.utf8) + [UInt8(ascii: "/")] } ?? []
        var paths: [[UInt8]] = []
        for name in names where !name.isEmpty {
            if name.first != UInt8(ascii: "/") { paths.append(folder + name) }
            paths.append(name)
        }
        return paths.map { Self(path: $0) }
    }
}
