// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import QCOW2

extension Image where S == FileStorage {
    /// Says on one line of standard error how other programs are kept out of the image.
    func reportLocking(_ path: String) {
        let sentence =
            switch locking {
            case .none: "is not locked; other programs may write to it meanwhile"
            case .byteRanges: "is locked against other programs, QEMU's included"
            case .advisory:
                "is locked against other qsnap commands only: its file system has none of the locks that QEMU uses"
            case .unavailable: "is not locked: its file system has no locks; let no other program use it meanwhile"
            }
        Console.writeError("qsnap: \(printable("'\(path)' \(sentence)."))\n")
    }
}
