import { beforeEach, describe, expect, it } from "vitest";
import { parseHealth } from "../model/parse";
import { classifierAway, health } from "./app";

const alarmed = (...codes: string[]) => {
  health.value = parseHealth({ status: "degraded", alarms: codes.map((code) => ({ code, message: "Away.", since: "" })) });
};

beforeEach(() => {
  health.value = null;
});

describe("whether somebody classifies", () => {
  it("is taken for granted until somebody says otherwise", () => {
    expect(classifierAway.value).toBe(false);
    alarmed("bus.unavailable", "audio.away", "language_model");
    expect(classifierAway.value).toBe(false);
  });

  it.each(["intelligence.away", "intelligence.store"])("is said by the alarm %s", (code) => {
    alarmed("bus.unavailable", code);
    expect(classifierAway.value).toBe(true);
    alarmed();
    expect(classifierAway.value).toBe(false);
  });
});
