// What keys may do, in words.

import { t, tryText } from "./words.js";

export const PERMISSIONS = ["recognize", "scores", "read", "search", "enrol", "erase", "configure", "calibrate", "audit", "live", "keys"];
/** @type {Record<string, string[]>} */
export const ROLES = {
  recognize: ["recognize"],
  enrol: ["recognize", "read", "enrol"],
  manage: ["recognize", "scores", "read", "search", "enrol", "erase", "live"],
  admin: PERMISSIONS,
};

/** @param {string[]} permissions Those of a role are said by it. @returns {string} */
export function namePermissions(permissions) {
  const role = Object.keys(ROLES).find((one) => ROLES[one].length === permissions.length && ROLES[one].every((each) => permissions.includes(each)));
  return role ? t(`role.${role}`) : permissions.map((one) => tryText(`may.${one}`, one)).join(", ");
}
