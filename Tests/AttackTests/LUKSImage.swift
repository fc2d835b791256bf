// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import Foundation
import TestTools

/// An encrypted image with one snapshot, made by QEMU.
enum LUKSImage {
    static func bytes() throws -> [UInt8] {
        let folder = try TemporaryFolder()
        let path = folder.file("luks.qcow2")
        let secret = ["--object", "secret,id=key0,data=secret"]
        let options = "encrypt.format=luks,encrypt.key-secret=key0,encrypt.iter-time=10,cluster_size=4k"
        // On a busy machine qemu-img sometimes can't time its key derivation, and gives up; a later try works.
        for _ in 0..<200 {
            let words = secret + ["-f", "qcow2", "-o", options, path, "256k"]
            if try Tool.run("qemu-img", ["create", "-q"] + words).status == 0 { break }
            usleep(50_000)
        }
        let source = secret + ["--image-opts", "driver=qcow2,encrypt.key-secret=key0,file.filename=\(path)"]
        try Tool.check("qemu-io", ["-c", "write -P 1 0 64k"] + source)
        try Tool.check("qemu-img", ["snapshot"] + secret + ["--image-opts", "-c", "first", source[3]])
        try Tool.check("qemu-io", ["-c", "write -P 2 16k 16k"] + source)
        return [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    }
}
