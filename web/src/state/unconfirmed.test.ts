import { beforeEach, describe, expect, it } from "vitest";
import { parseLive } from "../model/parse";
import { confirm, expireUnconfirmed, hearEmergency, isUnconfirmed, unconfirmed } from "./unconfirmed";

const heard = (id: string, now = 1000): void => {
  const message = parseLive(
    JSON.stringify({ type: "caption", conversation_id: "c", channel: "ops", speaker: 0, start_offset: 9, text: "fire in 412", utterance_id: id, emergency: true }),
  );
  if (message?.type === "caption") hearEmergency(message.caption, now);
};
const card = (insights: object[]): void => {
  const message = parseLive(JSON.stringify({ type: "card", card: { utterance_id: "u", conversation_id: "c", insights, change: 1 } }));
  if (message?.type === "card") confirm(message.card);
};

beforeEach(() => {
  unconfirmed.value = [];
});

describe("an emergency that is not confirmed", () => {
  it("stands once, until its card is classified", () => {
    heard("u");
    heard("u");
    expect(unconfirmed.value.map((each) => each.summary)).toEqual(["fire in 412"]);
    card([]);
    expect(isUnconfirmed("u")).toBe(true);
    card([{ index: 0, intent: "emergency", urgency: "critical" }]);
    expect(isUnconfirmed("u")).toBe(false);
  });

  it("goes by itself where no card comes", () => {
    heard("u");
    expireUnconfirmed(2000);
    expect(isUnconfirmed("u")).toBe(true);
    expireUnconfirmed(1_000_000);
    expect(unconfirmed.value).toEqual([]);
  });
});
