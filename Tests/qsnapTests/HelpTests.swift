// SPDX-License-Identifier: Apache-2.0
// Copyright the swift-qcow2 authors.

import ArgumentParser
import Testing

@testable import qsnap

@Suite struct HelpTests {
    @Test("Help names every command and every exit status")
    func help() {
        let text = QSnap.helpMessage(columns: 100)
        for word in ["list", "create", "apply", "delete", "rename", "64 usage", "7 not a qcow2 image"] {
            #expect(text.contains(word))
        }
    }
}
