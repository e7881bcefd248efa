package com.google.ai.edge.litert;

public final class LiteRtException extends RuntimeException {
    private static final long serialVersionUID = 1;

    LiteRtException(String message) {
        super(message);
    }
}
