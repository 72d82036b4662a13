/* The compression of a request as the page sets it: a profile, and beside it one rate for
 * the pictures. null and null is what the server does by itself.
 *
 *   {profile: "balanced" | null, ratio: 4 | null}      ratio 1 = pictures stay as they are */

/* What the slider can be set to, patches in for each row out. */
export const RATIOS = [1, 1.5, 2, 3, 4, 6, 8, 12, 16];
export const SERVER_PLAN = Object.freeze({ profile: null, ratio: null });
export const NO_PLAN = Object.freeze({ profile: "off", ratio: null });

/* The field `compression`; undefined where the server decides. */
export function toRequest(plan) {
  if (plan.ratio === null) {
    return plan.profile ?? undefined;
  }
  const image = plan.ratio === 1 ? "off" : { method: "tome", ratio: plan.ratio };
  return plan.profile === null ? { image } : { profile: plan.profile, image };
}

export const keyOf = (plan) => JSON.stringify([plan.profile, plan.ratio]);

export function fromKey(key) {
  const [profile, ratio] = JSON.parse(key);
  return { profile, ratio };
}

export function ratioName(ratio) {
  return ratio === 1 ? "off" : `${ratio}×`;
}

export function planName(plan) {
  const profile = plan.profile === null ? "server's plan" : plan.profile;
  return plan.ratio === null ? profile : `${profile}, pictures ${ratioName(plan.ratio)}`;
}

/* The step of the slider that is nearest to a ratio, compared as ratios are: by quotient. */
export function nearestRatio(ratio) {
  const distance = (r) => Math.abs(Math.log(r / Math.max(ratio, 1)));
  return RATIOS.reduce((best, r) => (distance(r) < distance(best) ? r : best));
}
